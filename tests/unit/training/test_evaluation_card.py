"""What an evaluation counted stands in the card of the bundle that was judged, and of no other."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dicom_node.core.errors import BundleInvalid
from training.evaluation.card import HEADING, main, put
from workers.bundles import SHIPPED_BUNDLES, load_bundle

CARD = Path("docs", "README.md")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy of a sealed bundle with a card that has the section."""
    folder = tmp_path / "lung_nodule"
    shutil.copytree(SHIPPED_BUNDLES / "lung_nodule", folder)
    text = f"# card\n\n## What was measured\n\nbefore\n\n{HEADING}\nNot counted.\n\n## Limits\n\nnone\n"
    (folder / CARD).write_text(text)
    put(evaluation("sealed"), folder)
    return folder


def evaluation(bundle: str, dice: float | None = 0.81) -> dict[str, Any]:
    row = {"value": 0.9, "low": 0.8, "high": None, "cases": 7, "patients": 3}
    nodule = {"scan": "lung1", "name": "labelled", "readers": 3, "diameter_mm": 13.8, "score": 0.97, "dice": dice}
    return {
        "bundle": bundle,
        "report_threshold": 0.4,
        "volumes_with_nodules": 4,
        "normals": 2,
        "lung_litres": 12.3,
        "nodules": [{}, {}, {}],
        "figures": {"Free response": {"CPM": row}},
        "real_scans": {
            "nodules": [nodule, {**nodule, "name": "B", "score": None, "dice": None}],
            "false_positives": {"lung1": 2},
        },
    }


def test_every_figure_and_every_real_nodule_stands_in_its_section(bundle: Path) -> None:
    text = (bundle / CARD).read_text()
    assert "4 semi-synthetic volumes with 3 nodules and 2 without, 12 litres" in text
    assert "| CPM | 0.900 (0.800 to -) | 7 |" in text
    assert "lung1, labelled: 3 readers, 13.8 mm: found, score 0.97, Dice 0.81." in text
    assert "lung1, B: 3 readers, 13.8 mm: missed, not marked." in text
    assert "lung1: 2 false positives" in text
    assert "Not counted." not in text
    assert "before" in text
    assert "\n## Limits\n\nnone\n" in text


def test_the_bundle_is_sealed_anew_and_counting_again_replaces_what_stood_there(bundle: Path) -> None:
    first = load_bundle(bundle)
    assert first.verified
    put(evaluation("again", dice=0.5), bundle)
    text = (bundle / CARD).read_text()
    assert "Dice 0.50" in text
    assert "0.81" not in text
    assert load_bundle(bundle).checksum != first.checksum


def test_a_card_without_the_section_is_told_to_be_exported_anew(bundle: Path) -> None:
    (bundle / CARD).write_text("# card\n")
    with pytest.raises(BundleInvalid, match="export the bundle anew"):
        put(evaluation("any"), bundle)


def test_figures_of_another_bundle_are_refused(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counted, judged = tmp_path / "evaluation.json", load_bundle(bundle)
    command = ["--bundle", str(bundle), "--evaluation", str(counted)]
    counted.write_text(json.dumps(evaluation("lung_nodule 0.4.0, checksum 000000000000")))
    with pytest.raises(SystemExit):
        main(command)
    assert "checksum 000000000000" in capsys.readouterr().err
    counted.write_text(json.dumps(evaluation(f"lung_nodule 0.4.0, checksum {judged.checksum[:12]}")))
    assert main(command) == 0
