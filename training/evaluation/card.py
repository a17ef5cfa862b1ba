"""What `make evaluate` counted, put into the card of the bundle that it judged.

`python -m training.evaluation.card [--bundle DIR] [--evaluation FILE]`. The card says then what the detector does as it
serves; the bundle is sealed anew, so that its checksum is another than the one that was judged.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dicom_node.core.errors import BundleInvalid
from training.bundle import seal
from workers.bundles import SHIPPED_BUNDLES, load_bundle

#: The section of the card, and where the next one begins.
HEADING, NEXT = "### As it serves\n", "\n## "
_CARD = Path("docs", "README.md")


def put(evaluation: Mapping[str, Any], bundle: Path) -> None:
    """Write the figures into the card in place of those before; BundleInvalid where it has no place for them."""
    path = bundle / _CARD
    text = path.read_text(encoding="utf-8")
    before, heading, rest = text.partition(HEADING)
    if not heading:
        raise BundleInvalid(f"{path} has no section {HEADING.strip()!r}: export the bundle anew")
    _, following, after = rest.partition(NEXT)
    path.write_text(f"{before}{heading}\n{_section(evaluation)}\n{following}{after}", encoding="utf-8")
    seal(bundle)


def _section(evaluation: Mapping[str, Any]) -> str:
    found = evaluation["nodules"]
    told = (
        f"`make evaluate`: {evaluation['volumes_with_nodules']} semi-synthetic volumes with {len(found)} nodules and "
        f"{evaluation['normals']} without, {evaluation['lung_litres']:.0f} litres of lung. Shapes and generated lungs "
        "taught nothing and set no threshold; of the two real lungs other slabs taught. Report threshold "
        f"{evaluation['report_threshold']:.2f}. Judged was {evaluation['bundle']}, before this was written here."
    )
    return "\n".join([told, *_tables(evaluation["figures"]), *_real(evaluation)])


def _tables(figures: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Iterator[str]:
    for title, rows in figures.items():
        yield from ("", f"| {title} | value (95 % interval) | n |", "|---|---|---|")
        for name, row in rows.items():
            value, low, high = (_number(row[key]) for key in ("value", "low", "high"))
            yield f"| {name} | {value} ({low} to {high}) | {row['cases']} |"


def _real(evaluation: Mapping[str, Any]) -> Iterator[str]:
    scans = evaluation["real_scans"]
    if scans["nodules"]:
        yield from ("", "Real scans that taught nothing and set no threshold; of so few nodules nothing is a rate:", "")
    for nodule in scans["nodules"]:
        score, overlap = nodule["score"], nodule["dice"]
        said = "missed" if score is None or score < evaluation["report_threshold"] else "found"
        marked = f", score {score:.2f}" if score is not None else ", not marked"
        outlined = f", Dice {overlap:.2f}" if overlap is not None else ""
        who = f"{nodule['scan']}, {nodule['name']}: {nodule['readers']} readers, {nodule['diameter_mm']:.1f} mm"
        yield f"- {who}: {said}{marked}{outlined}."
    for scan, count in scans["false_positives"].items():
        yield f"- {scan}: {count} false positives at the report threshold."


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m training.evaluation.card", description=__doc__)
    parser.add_argument("--bundle", type=Path, default=SHIPPED_BUNDLES / "lung_nodule")
    parser.add_argument("--evaluation", type=Path, default=Path("evaluation-output", "evaluation.json"))
    chosen = parser.parse_args(arguments)
    evaluation = json.loads(chosen.evaluation.read_text(encoding="utf-8"))
    judged = load_bundle(chosen.bundle)
    if judged.checksum[:12] not in evaluation["bundle"]:
        parser.error(f"{chosen.evaluation} is of {evaluation['bundle']}, and {chosen.bundle} is {judged.checksum[:12]}")
    put(evaluation, chosen.bundle)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
