"""The alert rules and the dashboard of docs/monitoring: promtool takes them, and every metric in them exists."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from durable import measures
from durable.metrics import snapshot

MONITORING = Path(__file__).parents[2] / "docs" / "monitoring"
PAGE = (MONITORING.parent / "how-to" / "metrics.md").read_text()
GAUGES = snapshot.GAUGES


def series() -> dict[str, set[str]]:
    """The name of every series that a scrape may have, with its labels."""
    found = {each.name: set(each.labels) for each in GAUGES}
    for each in measures.INSTRUMENTS:
        if isinstance(each, measures.Counter):
            found[f"{each.name}_total"] = set(each.labels)
        else:
            found |= {each.name + end: set(each.labels) for end in ("_sum", "_count")}
            found[f"{each.name}_bucket"] = {*each.labels, "le"}
    return found


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run promtool, which .ci/services installs."""
    path = shutil.which("promtool")
    if path is None:
        reason = "promtool is not installed; .ci/services installs it (Debian's package prometheus)."
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    return subprocess.run([path, *arguments], capture_output=True, text=True, cwd=MONITORING, check=False)


def test_prometheus_takes_the_rules():
    """``promtool check rules``."""
    checked = promtool("check", "rules", "alerts.yml")

    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_rules_fire_when_they_should_and_not_otherwise():
    """``promtool test rules``: a healthy system, and one in which everything is wrong."""
    tested = promtool("test", "rules", "alerts_test.yml")

    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_every_alert_is_tested_and_documented():
    """The page and the tests name each alert of the rules, and no other."""
    alerts = re.findall(r"alert: (\w+)", (MONITORING / "alerts.yml").read_text())
    tested = (MONITORING / "alerts_test.yml").read_text()

    assert alerts == re.findall(r"^\| `(Durable\w+)`", PAGE, re.MULTILINE)
    for alert in alerts:
        healthy, firing = f"{{ eval_time: 30m, alertname: {alert} }}", rf"alertname: {alert}\n\s+exp_alerts:"
        assert healthy in tested, alert
        assert re.search(firing, tested), alert


def test_every_metric_is_documented_with_its_labels():
    """The tables of docs/how-to/metrics.md have each metric and its labels, and no other."""
    rows = re.findall(r"^\| `(durable_\w+)` \|([^|]*)\|", PAGE, re.MULTILINE)
    counters = {f"{each.name}_total" for each in measures.INSTRUMENTS if isinstance(each, measures.Counter)}
    histograms = {each.name for each in measures.INSTRUMENTS if isinstance(each, measures.Histogram)}

    assert sorted(name for name, _ in rows) == sorted({*counters, *histograms, *(each.name for each in GAUGES)})
    labels = {
        each.name + ("_total" if each.name + "_total" in counters else ""): each.labels
        for each in (*measures.INSTRUMENTS, *GAUGES)
    }
    assert {name: tuple(re.findall(r"`(\w+)`", cell)) for name, cell in rows} == labels


@pytest.mark.parametrize("name", ["alerts.yml", "durable.json", "../how-to/metrics.md"])
def test_only_metrics_that_there_are_are_asked_for(name):
    """A renamed metric would leave an alert silent or a panel empty."""
    text = (MONITORING / name).read_text().replace('\\"', '"')
    known = series()
    asked = set(re.findall(r"\bdurable_(?!metrics\b|test\b)\w+", text))

    base = {each.name for each in measures.INSTRUMENTS}
    assert asked - set(known) - base == set()
    for metric, selector in re.findall(r"\b(durable_\w+)\{([^}]*)\}", text):
        assert set(re.findall(r"(\w+)\s*[=!]~?", selector)) <= known[metric], (metric, selector)


def test_every_metric_is_on_the_dashboard():
    """Also a new one: each is asked for by a panel."""
    dashboard = json.loads((MONITORING / "durable.json").read_text())
    queries = " ".join(target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ()))
    asked = {re.sub("_(bucket|sum|count)$", "", name) for name in re.findall(r"\bdurable_\w+", queries)}
    counted = {f"{each.name}_total" for each in measures.INSTRUMENTS if isinstance(each, measures.Counter)}
    measured = {each.name for each in measures.INSTRUMENTS if isinstance(each, measures.Histogram)}

    assert asked == counted | measured | {each.name for each in GAUGES}


def test_the_dashboard_is_one_that_grafana_imports():
    """Panels have unique ids, stand side by side without overlap, and ask the data source that the user chooses."""
    dashboard = json.loads((MONITORING / "durable.json").read_text())
    panels = dashboard["panels"]

    assert dashboard["uid"] == "durable"
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    for panel in panels:
        if panel["type"] != "row":
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert panel["targets"]


def test_prometheus_takes_the_dashboards_queries(tmp_path):
    """Every query of the dashboard, as the expression of a recording rule."""
    dashboard = json.loads((MONITORING / "durable.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    queries = [query.replace("$__rate_interval", "1m") for query in queries]
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries)]
    (tmp_path / "queries.yml").write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
    checked = promtool("check", "rules", str(tmp_path / "queries.yml"))

    assert checked.returncode == 0, checked.stdout + checked.stderr
