"""The files of examples/deploy/ name commands, options, settings and files that exist, and times that fit together."""

import json
import os
import re
import runpy
import shutil
import subprocess
import tomllib
from pathlib import Path

import celery
import click
import pytest
import yaml
from celery.bin import control, worker
from gunicorn.config import Config

from durable import cli
from durable.engine.settings import NAMES

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "examples" / "deploy"


def dockerfile():
    """The instructions of the Dockerfile, each as name and text."""
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    return re.findall(r"^([A-Z]+) (.*)$", text, re.MULTILINE)


def composed():
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]


def manifests():
    """Each object of the manifests."""
    return [
        each for path in sorted((DEPLOY / "kubernetes").glob("*.yaml")) for each in yaml.safe_load_all(path.read_text())
    ]


def pods():
    """The pods of the manifests, by the name of what makes them, each with its only container."""
    made = [each for each in manifests() if "template" in each.get("spec", {})]
    return {each["metadata"]["name"]: each["spec"]["template"]["spec"] for each in made}


def commands():
    """Every command of ours that the files contain, by its place."""
    (last,) = [json.loads(text) for name, text in dockerfile() if name == "CMD"]
    yield pytest.param(last, id="Dockerfile")
    for name, service in composed().items():
        if service["image"] == "shop":
            yield pytest.param(service["command"], id=f"compose {name}")
    for name, pod in pods().items():
        (container,) = pod["containers"]
        yield pytest.param([*container["command"], *container.get("args", [])], id=name)
        if "exec" in container.get("startupProbe", {}):
            *_, line = container["startupProbe"]["exec"]["command"]
            yield pytest.param(line.split(), id=f"probe of {name}")


def parsed(command, arguments):
    """The options and the rest, as click reads them; an option that does not exist is an error."""
    return command.make_parser(click.Context(command)).parse_args(list(arguments))[:2]


@pytest.mark.parametrize("command", list(commands()))
def test_commands_and_options_exist(command):
    """Each option is one of the program's."""
    program, *arguments = command
    if program == "celery":
        assert arguments[:2] == ["-A", "worker.app"]
        read_by = {"worker": worker.worker, "inspect": control.inspect}[arguments[2]]
        parsed(read_by, arguments[3:])
    elif program == "durable":
        verb, *options = arguments
        parsed(cli.main.get_command(click.Context(cli.main), verb), options)
    else:
        assert program == "gunicorn"
        options = vars(Config().parser().parse_args(arguments))
        assert options["config"] == "gunicorn.conf.py"
        assert options["args"] == ["webapp:create_app()"]


def test_settings_of_gunicorn_exist():
    """gunicorn.conf.py sets no setting that gunicorn does not have."""
    names = {name for name in runpy.run_path(str(DEPLOY / "gunicorn.conf.py")) if not name.startswith("_")}

    assert names <= set(Config().settings)
    assert {"bind", "threads", "post_worker_init"} <= names


def test_variables_are_settings():
    """What begins with DURABLE_ is a setting, or the default of --app."""
    text = "".join(path.read_text() for path in DEPLOY.rglob("*") if path.is_file())
    named = set(re.findall(r"\bDURABLE_([A-Z_]+)", text))

    assert {"DATABASE_URL", "BROKER_URL", "PUBLIC_URL"} <= named <= {name.upper() for name in NAMES} | {"APP"}


def test_the_image_copies_files_that_exist():
    """So that it can be built from a checkout; and it installs an extra of durable's."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for name, text in dockerfile():
        if name == "COPY":
            *sources, _ = text.split()
            assert [each for each in sources if not (ROOT / each).exists()] == []
    (installed,) = re.findall(r"pip install --no-cache-dir '\.\[([\w,]+)\]'", (DEPLOY / "Dockerfile").read_text())
    assert set(installed.split(",")) == {"postgres", "prometheus"} <= set(extras)


def soft_shutdown(command):
    """The seconds that a worker of this command waits for its steps; Celery reads them as it would itself."""
    _, rest = parsed(worker.worker, command[4:])
    app = celery.Celery("deploy")
    app.config_from_cmdline(rest, namespace="worker")
    return app.conf.worker_soft_shutdown_timeout


def test_a_worker_has_longer_than_its_soft_shutdown():
    """The platform kills no worker that is still waiting for its steps or releasing them."""
    pod = pods()["shop-worker"]
    (container,) = pod["containers"]
    service = composed()["worker"]

    assert soft_shutdown([*container["command"], *container["args"]]) + 20 <= pod["terminationGracePeriodSeconds"]
    assert soft_shutdown(service["command"]) + 20 <= int(service["stop_grace_period"].removesuffix("s"))
    assert {"name": "REMAP_SIGTERM", "value": "SIGQUIT"} in container["env"]
    assert service["environment"]["REMAP_SIGTERM"] == "SIGQUIT"


def test_a_web_process_has_longer_than_its_requests():
    """So has it: preStop and graceful_timeout fit into the grace period."""
    graceful = runpy.run_path(str(DEPLOY / "gunicorn.conf.py"))["graceful_timeout"]
    pod = pods()["shop-web"]
    (container,) = pod["containers"]
    _, slept = container["lifecycle"]["preStop"]["exec"]["command"]

    assert int(slept) + graceful < pod["terminationGracePeriodSeconds"]
    assert graceful < int(composed()["web"]["stop_grace_period"].removesuffix("s"))


def test_probes_ask_a_route_of_the_example():
    """Each probe over HTTP has the port that gunicorn binds and a path that webapp answers without a database."""
    (container,) = pods()["shop-web"]["containers"]
    bound = runpy.run_path(str(DEPLOY / "gunicorn.conf.py"))["bind"]
    probes = [container[name]["httpGet"] for name in ("startupProbe", "readinessProbe", "livenessProbe")]

    assert probes == [{"path": "/health", "port": int(bound.partition(":")[2])}] * 3
    assert '"/health"' in (ROOT / "webapp" / "__init__.py").read_text()


def test_the_manifests_belong_together():
    """Selectors match labels, every pod has the same image and the same secret, and the Service finds the web pods."""
    by_kind = {}
    for each in manifests():
        by_kind.setdefault(each["kind"], []).append(each)
    (service,), (secret,) = by_kind["Service"], by_kind["Secret"]
    labels = {}
    for each in by_kind["Deployment"]:
        labels[each["metadata"]["name"]] = each["spec"]["template"]["metadata"]["labels"]
        assert each["spec"]["selector"]["matchLabels"] == labels[each["metadata"]["name"]]

    assert service["spec"]["selector"] == labels["shop-web"]
    containers = [pod["containers"][0] for pod in pods().values()]
    assert len({container["image"] for container in containers}) == 1
    assert all(each["envFrom"] == [{"secretRef": {"name": secret["metadata"]["name"]}}] for each in containers)


def test_workers_are_scaled_by_a_metric_that_exists():
    """It is one of durable's, with a label that it has, and the autoscaler scales the worker of the manifests."""
    (scaler,) = [each for each in manifests() if each["kind"] == "HorizontalPodAutoscaler"]
    (metric,) = [each["external"]["metric"] for each in scaler["spec"]["metrics"]]
    page = (ROOT / "docs" / "how-to" / "metrics.md").read_text()
    (row,) = [line for line in page.splitlines() if line.startswith(f"| `{metric['name']}` ")]

    assert scaler["spec"]["scaleTargetRef"]["name"] in pods()
    assert all(f"`{label}`" in row for label in metric["selector"]["matchLabels"])


def test_all_files_have_the_same_commands():
    """tests/live/test_deployed.py runs those of compose.yaml; the others are the same, but for a worker's name."""
    expected = {name: composed()[name]["command"] for name in ("migrate", "worker", "web")}
    (last,) = [json.loads(text) for name, text in dockerfile() if name == "CMD"]
    found = {}
    for name, pod in pods().items():
        (container,) = pod["containers"]
        given = [*container["command"], *container.get("args", [])]
        if "--hostname" in given:
            place = given.index("--hostname")
            del given[place : place + 2]
        found[name.removeprefix("shop-")] = given

    assert found == expected
    assert last == expected["worker"]


def mounted(folder):
    """The configuration of Prometheus and its rules, in a folder as compose.yaml mounts them."""
    names = []
    for volume in composed()["prometheus"]["volumes"]:
        source, target, mode = volume.split(":")
        shutil.copy(DEPLOY / source, folder / Path(target).name)
        assert (Path(target).parent, mode) == (Path("/etc/prometheus"), "ro")
        names.append(Path(target).name)
    return names


def test_prometheus_scrapes_the_web_service_of_compose(tmp_path):
    """The target is a service and the port that gunicorn binds; the rules are those of docs/monitoring."""
    names = mounted(tmp_path)
    config = yaml.safe_load((tmp_path / "prometheus.yml").read_text())
    bound = runpy.run_path(str(DEPLOY / "gunicorn.conf.py"))["bind"].partition(":")[2]
    (scraped,) = config["scrape_configs"]

    assert names == ["prometheus.yml", *config["rule_files"]]
    assert scraped["static_configs"] == [{"targets": [f"web:{bound}"]}]
    assert "metrics_path" not in scraped
    assert '"/metrics"' in (ROOT / "durable" / "metrics" / "view.py").read_text()
    assert (tmp_path / "alerts.yml").read_text() == (ROOT / "docs" / "monitoring" / "alerts.yml").read_text()


def test_prometheus_takes_its_configuration(tmp_path):
    """``promtool check config``, which checks the rules too."""
    program = shutil.which("promtool")
    if program is None:
        reason = "promtool is not installed; .ci/services installs it (Debian's package prometheus)."
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    mounted(tmp_path)
    checked = subprocess.run(
        [program, "check", "config", "prometheus.yml"], cwd=tmp_path, capture_output=True, text=True
    )

    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "1 rule files found" in checked.stdout


def test_one_command_starts_all_that_the_page_promises():
    """docs/how-to/deploying.md: two workers, a web process, a migration, PostgreSQL, Redis and Prometheus."""
    services = composed()

    assert set(services) == {"database", "broker", "migrate", "worker", "web", "prometheus"}
    assert services["worker"]["deploy"] == {"replicas": 2}
    for service in services.values():
        assert set(service.get("depends_on", ())) <= set(services)
