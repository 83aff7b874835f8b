"""Where settings come from, and what is refused."""

import pytest

from durable.engine.settings import NAMES, Settings, check_names, resolve
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
    with pytest.raises(ConfigurationError, match=r"no setting 'hold_time'.*hold_timeout"):
        check_names({"hold_time": 3})


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
