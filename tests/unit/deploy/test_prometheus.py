"""What deploy/prometheus asks for is what a node really shows, and promtool takes all of it."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from dicom_node.audit import AuditTrail
from dicom_node.core.lifecycle import StudyState
from dicom_node.telemetry import Metrics
from dicom_node.web.alerts import Alerts
from dicom_node.web.line_limits import LineLimits
from dicom_node.web.metrics import IndexCollector
from tests.conftest import ROOT
from tests.populated_index import NOW, WORKERS, open_populated

FOLDER = ROOT / "deploy" / "prometheus"
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text(encoding="utf-8"))
RULES = (FOLDER / "rules.yml").read_text(encoding="utf-8")

Sample = tuple[str, dict[str, str]]


def dashboard_expressions() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel["targets"])


def rule_expressions() -> Iterator[str]:
    yield from re.findall(r"expr: (?:>-\n\s+)?(.+(?:\n\s+/ .+)?)", RULES)


EXPRESSIONS = [*dashboard_expressions(), *rule_expressions()]


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Every sample of a node on a busy morning, with a GPU."""
    index = open_populated(tmp_path_factory.mktemp("index"))
    index.workers.beat(WORKERS[0], job_uid=None, at=NOW - 3, memory_bytes=(6 << 30, 80 << 30))
    index.conditions.began("broker", reason="no Redis", at=NOW)
    metrics = Metrics()
    metrics.may_refuse("instance", ["OutOfResources"])
    limits = LineLimits(clock=lambda: NOW)
    Alerts(trail=AuditTrail((), source="TRIAGE"), metrics=metrics, limits=limits, clock=limits.clock)
    metrics.refused("association", "Calling AE title not recognised")
    metrics.instances_received.labels(outcome="new").inc()
    metrics.associations.labels(ending="released").inc()
    metrics.registry.register(IndexCollector(index, dict, lambda: NOW, lambda: 5_000_000, lambda: 9_000_000))
    text = generate_latest(metrics.registry).decode()
    index.close()
    return [(s.name, s.labels) for family in text_string_to_metric_families(text) for s in family.samples]


def test_there_is_something_to_check() -> None:
    assert len(list(dashboard_expressions())) > 20
    assert len(list(rule_expressions())) == RULES.count("- alert: ") > 10


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_what_is_asked_for_is_what_a_node_shows(samples: list[Sample], expression: str) -> None:
    """Names, the values that labels are compared with, and the labels that are summed by."""
    asked = re.findall(r"(dicom_node_\w+|\bup\b)(?:\{([^}]*)\})?", expression)
    assert asked
    for name, matchers in asked:
        if name == "up":  # Prometheus's own
            continue
        wanted = dict(re.findall(r'(\w+)="([^"]*)"', matchers))
        shown = [labels for known, labels in samples if known == name]
        assert shown, f"no node shows {name}"
        assert any(wanted.items() <= labels.items() for labels in shown), f"{name} has no {wanted}"
        for by in re.findall(r"by \(([\w, ]+)\)", expression):
            assert set(by.split(", ")) <= {label for labels in shown for label in labels}


def test_every_state_and_every_outcome_is_there_before_it_happens(samples: list[Sample]) -> None:
    """Of a counter that begins at one, Prometheus sees no increase."""
    entered = {labels["state"] for name, labels in samples if name == "dicom_node_studies_entered_total"}
    assert entered == set(StudyState)
    outcomes = {labels["outcome"] for name, labels in samples if name == "dicom_node_delivery_outcomes_total"}
    assert outcomes == {"accepted", "committed", "failed", "postponed"}


def test_everything_that_is_to_be_watched_has_a_panel() -> None:
    shown = " ".join(dashboard_expressions())
    for name in (
        *("instances_received", "refusals", "queue_jobs", "queue_oldest", "service", "waiting", "time_to_result"),
        *("time_to_delivery", "delivery_outcomes", "worker_memory", "free_disk"),
    ):
        assert f"dicom_node_{name}" in shown


def test_the_dashboard_names_no_place_and_no_two_panels_lie_over_each_other() -> None:
    assert all(panel["datasource"]["uid"] == "${source}" for panel in DASHBOARD["panels"])
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(places)


@pytest.mark.parametrize("command", [("rules", "rules.yml"), ("config", "--syntax-only", "prometheus.yml")])
def test_promtool_takes_rules_and_settings(program: Callable[[str], Path], command: tuple[str, ...]) -> None:
    done = subprocess.run([program("promtool"), "check", *command], cwd=FOLDER, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_say_what_their_tests_expect(program: Callable[[str], Path]) -> None:
    done = subprocess.run(
        [program("promtool"), "test", "rules", "rules_test.yml"], cwd=FOLDER, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_rule_that_asks_wrongly_is_refused(program: Callable[[str], Path], tmp_path: Path) -> None:
    """So that the two above can fail."""
    shutil.copytree(FOLDER, tmp_path / "rules")
    rules = tmp_path / "rules" / "rules.yml"
    rules.write_text(RULES.replace("== 0", "== ("), encoding="utf-8")
    assert subprocess.run([program("promtool"), "check", "rules", rules], capture_output=True).returncode != 0


@pytest.mark.parametrize("expression", list(dashboard_expressions()))
def test_promtool_takes_every_question_of_the_dashboard(
    program: Callable[[str], Path], tmp_path: Path, expression: str
) -> None:
    rules = tmp_path / "rules.yml"
    question = expression.replace("$__rate_interval", "5m")
    rules.write_text(json.dumps({"groups": [{"name": "a", "rules": [{"record": "b:c", "expr": question}]}]}))
    done = subprocess.run([program("promtool"), "check", "rules", rules], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
