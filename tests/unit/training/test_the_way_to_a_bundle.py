"""`python -m training`: train, calibrate, evaluate, export, one after the other, for both questions."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from training.__main__ import main
from training.report.page import Picture, Plot, Report, page
from workers.bundles import load_bundle


class Outline(HTMLParser):
    """Which elements a page has, and that they are closed in order; what it would fetch."""

    VOID = frozenset({"meta", "img", "path", "use", "rect", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.count: dict[str, int] = {}
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        self.fetched += [
            v for k, v in attrs if k in ("src", "href", "xlink:href") and v and v[0] != "#" and v[:5] != "data:"
        ]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def outline(text: str) -> Outline:
    found = Outline()
    found.feed(text)
    assert found.open == []
    return found


@pytest.fixture(scope="module")
def xray(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of the toy experiment, with everything that the four verbs leave there, in one command."""
    folder = tmp_path_factory.mktemp("xray")
    assert main(["make", "smoke_xray", "--out", str(folder), "--data", str(folder)]) == 0
    return folder


def test_the_bundle_is_one_that_a_worker_loads(xray: Path) -> None:
    bundle = load_bundle(xray / "bundle" / "smoke_xray")
    assert bundle.verified
    assert "research only" in bundle.intended_use
    assert 0 < bundle.number("postprocessing", "report_threshold") < 1
    assert bundle.metadata["calibration"] == json.loads((xray / "calibration.json").read_text())
    assert sum(p.numel() for p in bundle.network().parameters()) > 0
    card = (bundle.folder / "docs" / "README.md").read_text()
    assert "{" not in card
    assert "Not for diagnostic use" in card


def test_the_report_stands_alone_and_says_on_how_much_it_rests(xray: Path) -> None:
    text = (xray / "report.html").read_text()
    found = outline(text)
    assert found.fetched == []
    assert found.count["svg"] == 3
    assert "test 48 (32 with pneumonia)" in text
    assert "Research only" in text
    assert "The data name no patients" in text


def test_what_a_person_can_mend_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in [
        (["train", "nothing"], "nothing is not there"),
        (["evaluate", "smoke_xray"], "train first"),
        (["train", "chest_xray_pneumonia"], "no pneumoniamnist.npz"),
    ]:
        assert main([*arguments, "--data", str(tmp_path), "--out", str(tmp_path / "run")]) == 1
        told = capsys.readouterr().err
        assert said in told
        assert told.count("\n") == 1


def test_a_bundle_is_not_exported_before_it_is_calibrated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "smoke_xray", "--data", str(tmp_path), "--out", str(tmp_path)]) == 0
    assert main(["export", "smoke_xray", "--data", str(tmp_path), "--out", str(tmp_path)]) == 1
    assert "run calibrate first" in capsys.readouterr().err


def test_the_nodules_report_says_that_it_is_semi_synthetic(tmp_path: Path) -> None:
    for verb in ("train", "evaluate"):
        assert main([verb, "smoke", "--data", str(tmp_path), "--out", str(tmp_path)]) == 0
    text = (tmp_path / "report.html").read_text()
    found = outline(text)
    assert found.fetched == []
    assert "Semi-synthetic data." in text
    assert "CPM" in text
    assert found.count["img"] >= 1


TOY_CASES = """
name = "mine"
task = "lung_nodule_cases"
data = {source = "synthetic", patch = [16, 32, 32], batch = 4}
network = {channels = [4, 8, 16], strides = [2, 2], num_res_units = 1}
training = {steps = 30, warmup_steps = 3, learning_rate = 1e-2, average_decay = 0.8, first_bias = -1.0, threads = 1}
bundle = {roi_size = [32, 64, 64], candidate_threshold = 0.2}
"""


def test_scans_with_findings_lead_to_a_bundle_with_a_card_of_their_own(tmp_path: Path) -> None:
    """Thirty steps tell bright balls from a dark toy lung."""
    (tmp_path / "mine.toml").write_text(TOY_CASES)
    said = [str(tmp_path / "mine.toml"), "--data", str(tmp_path), "--out", str(tmp_path)]
    for verb in ("train", "calibrate", "evaluate", "export"):
        assert main([verb, *said]) == 0, verb
    bundle = load_bundle(tmp_path / "bundle" / "mine")
    assert "semi-synthetic" not in json.dumps(dict(bundle.metadata))
    assert bundle.metadata["calibration"]["validation_cases"] >= 4
    card = (bundle.folder / "docs" / "README.md").read_text()
    found = re.search(r"\| CPM \| ([\d.]+)", card)
    assert found is not None, card
    assert float(found[1]) > 0.25, card  # a network that has learnt nothing has 0
    assert "4 nodules in 2 scans" in (tmp_path / "report.html").read_text()


def test_whatever_a_title_holds_stays_text() -> None:
    report = Report(
        title="<script>",
        warnings=("a & b",),
        summary="<b>",
        facts={"<i>": "<i>"},
        figures={},
        plots=(Plot(title="<u>", svg="<svg></svg>", words="<u>"),),
        worst=(Picture(url="data:,", words='"><script>'),),
        limits=("<li>",),
    )
    found = outline(page(report))
    assert not {"script", "b", "i", "u"} & set(found.count)
    assert found.count["li"] == 1
