"""Where settings come from, and what is refused."""

import re
from pathlib import Path

import pytest

import durable
from durable.engine.settings import NAMES, OTHER_VARIABLES, Settings, check_names, check_variables, resolve
from durable.errors import ConfigurationError


def unset(name):
    return None


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(f"DURABLE_{name.upper()}", raising=False)


def test_defaults():
    """Without any configuration the embedded defaults hold."""
    assert resolve({}, unset) == Settings()


def test_keyword_wins_over_environment_over_configuration(monkeypatch):
    """Keyword, environment, Celery configuration, default: the first that is set counts."""
    configuration = {"durable_hold_timeout": "3s"}.get
    assert resolve({}, configuration).hold_timeout == 3_000_000

    monkeypatch.setenv("DURABLE_HOLD_TIMEOUT", "4s")
    assert resolve({}, configuration).hold_timeout == 4_000_000
    assert resolve({"hold_timeout": 5}, configuration).hold_timeout == 5_000_000


def test_a_bare_number_in_the_environment_is_seconds(monkeypatch):
    """DURABLE_CONTINUATION=0 turns it off; 0.1 is 100 ms."""
    monkeypatch.setenv("DURABLE_CONTINUATION", "0")
    assert resolve({}, unset).continuation == 0

    monkeypatch.setenv("DURABLE_CONTINUATION", "0.1")
    assert resolve({}, unset).continuation == 100_000


def test_unknown_keyword_is_refused_with_the_known_ones():
    """A misspelt setting is told at once, with what there is."""
    with pytest.raises(
        ConfigurationError, match=r"no setting 'hold_time'\.  Did you mean hold_timeout\?  The settings"
    ):
        check_names({"hold_time": 3})


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("DURABLE_DATABSE_URL", "DURABLE_DATABASE_URL"),
        ("DURABLE_BROKER", "DURABLE_BROKER_URL"),
        ("DURABLE_APPS", "DURABLE_APP"),
    ],
)
def test_a_misspelt_variable_is_refused_with_the_nearest(given, meant):
    """Nothing would read it, and the default would be used in silence."""
    with pytest.raises(ConfigurationError, match=f"variable {given} is not .* Did you mean {meant}"):
        check_variables({given: "x", "PATH": "/bin"})


def refused_beside(name):
    """The variables that are refused where *name* is set too, each by itself: that one, and a misspelt one."""
    refused = []
    for each in (name, "DURABLE_DATABSE_URL"):
        try:
            check_variables({each: "x"})
        except ConfigurationError:
            refused.append(each)
    return refused


@pytest.mark.parametrize("name", [*OTHER_VARIABLES, *(f"DURABLE_{name.upper()}" for name in NAMES)])
def test_the_variables_of_durable_are_accepted(name):
    """The settings, and what the command, the tests and `durable dev` use: the error names only the misspelt one."""
    assert refused_beside(name) == ["DURABLE_DATABSE_URL"]


@pytest.mark.parametrize(
    "name",
    [
        "DURABLE_CONTROL_SECRET",
        "DURABLE_KEY_1",
        "DURABLE_TEST_DATABASE_URL",
        "DURABLE_SERVICE_HOST",
        "DURABLE_SERVICE_PORT",
        "DURABLE_PORT",
        "DURABLE_PORT_80_TCP_ADDR",
    ],
)
def test_other_variables_are_the_applications_own(name):
    """A secret whose name the application has chosen, and Kubernetes' variables of a service named durable."""
    assert refused_beside(name) == ["DURABLE_DATABSE_URL"]


def test_every_variable_that_the_code_reads_is_listed():
    """No string in the package names a variable that is neither a setting nor in OTHER_VARIABLES."""
    files = Path(durable.__file__).parent.rglob("*.py")
    read = {name for path in files for name in re.findall(r'"(DURABLE_[A-Z_]+)"', path.read_text())}

    assert read <= {*OTHER_VARIABLES, *(f"DURABLE_{name.upper()}" for name in NAMES)}


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("reddis://127.0.0.1:6379/0", r"scheme reddis://\.  Did you mean redis\?"),
        ("amqp://a;rabbit://b", "scheme rabbit://"),
        ("postgresql+psycopg://x", r"scheme postgresql\+psycopg://"),
    ],
)
def test_a_broker_url_of_an_unknown_scheme_is_refused_in_one_line(url, message):
    """When the engine is made, and not by a KeyError when the first message is sent."""
    with pytest.raises(ConfigurationError, match=message) as raised:
        resolve({"broker_url": url}, unset)

    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    ["redis://h", "rediss://h", "amqp://a;amqp://b", "sqs://", "sqla+sqlite:///x.db", "redis+socket:///x", "a.b:C://x"],
)
def test_the_schemes_of_kombu_are_accepted(url):
    """Also several URLs, a scheme behind a transport's, and the path of a transport's class."""
    assert resolve({"broker_url": url}, unset).broker_url == url


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hold_timeout", "soon"),
        ("hold_timeout", 56),
        ("hold_timeout", -1),
        ("public_url", "example.com"),
        ("public_url", "https://example.com/?a=1"),
        ("max_body", "big"),
        ("max_body", True),
        ("pool_size", -1),
        ("eta_horizon", 0),
        ("turn_cpu_limit", "-1s"),
        ("max_events", "many"),
        ("database_url", ""),
    ],
)
def test_malformed_values_name_the_setting(name, value):
    """The error names the setting and where the value came from."""
    with pytest.raises(ConfigurationError, match=name):
        resolve({name: value}, unset)


def test_a_malformed_url_is_not_repeated():
    """A URL holds a password, so that no error shows it."""
    with pytest.raises(ConfigurationError) as caught:
        resolve({"broker_url": 3}, unset)

    assert "3" not in str(caught.value).replace("(a URL)", "")


def test_public_url_loses_its_last_slash():
    """What is put behind it begins with one."""
    assert resolve({"public_url": "https://example.com/in/"}, unset).public_url == "https://example.com/in"
