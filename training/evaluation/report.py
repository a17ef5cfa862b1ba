"""What a set of judged volumes says: figures with intervals, as JSON and as a page with misses and false positives."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.evaluation.judged import SCAN_ML, Judged, Nodule, Sight
from training.metrics import detection, outlines
from training.metrics.bootstrap import Estimate, bootstrap
from training.report import pictures, plots
from training.report.page import Picture, Plot, Report, write_page

#: From this size nodules must be found.
WANTED_FROM_MM = 6.0
SIZES_MM = {"under 6 mm": (0.0, 6.0), "6 to 10 mm": (6.0, 10.0), "10 mm and more": (10.0, np.inf)}
#: What a nodule that was drawn as a kind is said to consist of; kinds that readers would not agree on are left out.
COMPOSITIONS = {
    "solid": "SOLID",
    "calcified": "SOLID",
    "core": "PART_SOLID",
    "ground glass": "NON_SOLID",
}
LIMITS = (
    "Semi-synthetic: real nodule shapes drawn into generated and real lungs by the program whose like drew those that "
    "taught. It says how the detector does on such drawings, and nothing of patients.",
    "Generated thoraces differ in their vessels and irregularities, not in build; the two real lungs are other slabs "
    "of patients whose lungs taught.",
    f"A scan is counted as {SCAN_ML / 1000:g} litres of lung. Intervals draw lungs with replacement, with all their "
    "volumes; there are few lungs.",
    "A mark finds a nodule when it is nearer to the nodule's centre than the nodule's radius, as LUNA16 counts.",
)
REAL_LIMITS = "The real scans are two, of few nodules: nothing that is counted on them is a rate."
_MOST_PICTURES = 120
_PICTURE_SIDE = 470


@dataclass(frozen=True, kw_only=True)
class RealFound:
    """A nodule of a real scan, and what was said of it."""

    scan: str
    name: str
    readers: int
    diameter_mm: float
    score: float
    #: nan where there is no outline to compare with, or nothing was found.
    dice: float


@dataclass(frozen=True, kw_only=True)
class Result:
    """Everything that was judged with one bundle."""

    bundle: str
    report_threshold: float
    with_nodules: tuple[Judged, ...]
    normals: tuple[Judged, ...]
    real: tuple[RealFound, ...]
    #: False positives at the report threshold, by real scan.
    real_false: Mapping[str, int]
    real_sights: tuple[Sight, ...]
    seconds: float

    @property
    def nodules(self) -> tuple[Nodule, ...]:
        """All that were drawn in."""
        return tuple(nodule for judged in self.with_nodules for nodule in judged.nodules)

    @property
    def sights(self) -> tuple[Sight, ...]:
        """Every miss, then every false positive, the most certain first."""
        every = [s for judged in (*self.with_nodules, *self.normals) for s in judged.sights] + list(self.real_sights)
        return tuple(sorted(every, key=lambda seen: (not seen.is_miss, -seen.score)))


Tables = Mapping[str, Mapping[str, Estimate]]


def figures(result: Result) -> dict[str, dict[str, Estimate]]:
    """Tables of figures by title."""
    everything = [judged.matched for judged in (*result.with_nodules, *result.normals)]
    wanted = [_only(judged, WANTED_FROM_MM) for judged in (*result.with_nodules, *result.normals)]
    tables = {"Free response, all nodules": detection.estimates(everything)}
    tables[f"Free response, nodules of {WANTED_FROM_MM:g} mm and more"] = detection.estimates(wanted)
    tables["At the report threshold"] = _at_threshold(result)
    tables["Found at the report threshold"] = _groups(result)
    found = [n for n in result.nodules if n.score >= result.report_threshold and np.isfinite(n.dice)]
    if found:
        tables["Outlines of nodules that were found"] = _outlines(found)
    composed = [nodule for nodule in found if nodule.kind in COMPOSITIONS and nodule.composition]
    if composed:
        tables["Composition said rightly"] = {
            name: _share([n.composition == said for n in some], [n.background for n in some])
            for name, said in COMPOSITIONS.items()
            if (some := [n for n in composed if n.kind == name])
        }
    return tables


def _only(judged: Judged, least_mm: float) -> detection.Matched:
    """The volume with its larger nodules alone; marks on the smaller ones are not false."""
    kept = tuple(n.score for n in judged.nodules if n.diameter_mm >= least_mm)
    return replace(judged.matched, nodule_scores=kept)


def _at_threshold(result: Result) -> dict[str, Estimate]:
    volumes = (*result.with_nodules, *result.normals)
    false = np.array([sum(s >= result.report_threshold for s in v.matched.false_scores) for v in volumes], dtype=float)
    shares = np.array([v.matched.share for v in volumes])
    patients = [v.matched.patient for v in volumes]

    def rate(cases: NDArray[np.int_]) -> float:
        return float(false[cases].sum() / shares[cases].sum())

    table = {"false positives a scan": bootstrap(rate, patients)}
    if result.normals:
        empty = [all(s < result.report_threshold for s in v.matched.false_scores) for v in result.normals]
        table["normals without any finding"] = _share(empty, [v.matched.patient for v in result.normals])
    return table


def _groups(result: Result) -> dict[str, Estimate]:
    groups: dict[str, list[Nodule]] = {"all": list(result.nodules)}
    for nodule in result.nodules:
        size = next(name for name, (low, high) in SIZES_MM.items() if low <= nodule.diameter_mm < high)
        where = "generated lungs" if nodule.background.startswith("phantom") else "real lungs"
        names = (f"size {size}", f"kind {nodule.kind}", f"slices of {nodule.slice_thickness_mm:g} mm", where)
        for name in names:
            groups.setdefault(name, []).append(nodule)
    return {
        name: _share([n.score >= result.report_threshold for n in some], [n.background for n in some])
        for name, some in sorted(groups.items())
    }


def _outlines(found: Sequence[Nodule]) -> dict[str, Estimate]:
    patients = [nodule.background for nodule in found]
    overlap = np.array([nodule.dice for nodule in found])
    agreed = outlines.agreement(
        np.array([n.measured_mm3 for n in found]), np.array([n.volume_mm3 for n in found]), patients
    )
    ratio = np.array([n.measured_mm3 / n.volume_mm3 for n in found])
    return {
        "Dice, mean": bootstrap(lambda cases: float(overlap[cases].mean()), patients),
        "Dice, median": bootstrap(lambda cases: float(np.median(overlap[cases])), patients),
        "volume bias, mean (share of the true volume)": agreed.bias,
        "volume, median ratio to the true one, less 1": bootstrap(
            lambda cases: float(np.median(ratio[cases]) - 1), patients
        ),
        "volume, lower limit of agreement": agreed.lower_limit,
        "volume, upper limit of agreement": agreed.upper_limit,
    }


def _share(right: Sequence[bool], patients: Sequence[str]) -> Estimate:
    values = np.array(right, dtype=float)
    return bootstrap(lambda cases: float(values[cases].mean()), patients)


def as_json(result: Result, tables: Tables) -> dict[str, Any]:
    """Every figure, every nodule, and every miss and false positive in words; what is not a number is null."""
    return _plain(
        {
            "data": "semi-synthetic, and two real scans",
            "bundle": result.bundle,
            "report_threshold": result.report_threshold,
            "volumes_with_nodules": len(result.with_nodules),
            "normals": len(result.normals),
            "lung_litres": sum(v.lung_ml for v in (*result.with_nodules, *result.normals)) / 1000,
            "seconds": round(result.seconds),
            "figures": {t: {name: asdict(e) for name, e in rows.items()} for t, rows in tables.items()},
            "nodules": [asdict(nodule) for nodule in result.nodules],
            "false_scores": [s for v in (*result.with_nodules, *result.normals) for s in v.matched.false_scores],
            "real_scans": {
                "nodules": [asdict(found) for found in result.real],
                "false_positives": dict(result.real_false),
            },
            "misses_and_false_positives": [seen.words for seen in result.sights],
        }
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value


def write(result: Result, tables: Tables, folder: Path) -> tuple[Path, Path]:
    """The page and the JSON file in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    figures_path = folder / "evaluation.json"
    figures_path.write_text(json.dumps(as_json(result, tables), indent=2) + "\n", encoding="utf-8")
    return write_page(page(result, tables), folder / "evaluation.html"), figures_path


def page(result: Result, tables: Tables) -> Report:
    """The page."""
    everything = [judged.matched for judged in (*result.with_nodules, *result.normals)]
    rate = tables["At the report threshold"]["false positives a scan"].value
    shown = result.sights[:_MOST_PICTURES]
    left_out = len(result.sights) - len(shown)
    return Report(
        title="Lung nodules on chest CT, as served",
        warnings=("Semi-synthetic data.", "Research only, not for diagnostic use."),
        summary=_summary(tables),
        facts={
            "bundle": result.bundle,
            "report threshold": f"{result.report_threshold:.2f}; the model card says what it was set on",
            "volumes with nodules": f"{len(result.with_nodules)}, with {len(result.nodules)} nodules",
            "volumes without": f"{len(result.normals)} whole generated thoraces",
            "lung": f"{sum(v.lung_ml for v in (*result.with_nodules, *result.normals)) / 1000:.1f} litres",
            **{f"real scan {name}": _real(result, name) for name in result.real_false},
            "pictures": "axial, coronal, sagittal; green: truth, amber: ours"
            + (f"; {left_out} more are in the JSON file in words" if left_out else ""),
        },
        figures=tables,
        plots=(
            Plot(
                title="FROC, all nodules",
                svg=plots.froc(detection.froc(everything), rate),
                words="Points: the seven rates of CPM. The ring is the report threshold.",
            ),
        ),
        worst=tuple(
            Picture(
                url=pictures.png(seen.values, seen.truth, seen.ours, side=_PICTURE_SIDE), words=seen.words, wide=True
            )
            for seen in shown
        ),
        limits=(*LIMITS, *((REAL_LIMITS,) if result.real else ())),
    )


def _summary(tables: Tables) -> str:
    wanted = tables[f"Free response, nodules of {WANTED_FROM_MM:g} mm and more"]
    said = f"CPM {tables['Free response, all nodules']['CPM']}; of nodules of {WANTED_FROM_MM:g} mm and more "
    said += f"{wanted['sensitivity at 1 false positives a scan']} are found at one false positive a scan."
    return said


def _real(result: Result, scan: str) -> str:
    words = []
    for nodule in result.real:
        if nodule.scan == scan:
            said = "missed" if not np.isfinite(nodule.score) or nodule.score < result.report_threshold else "found"
            score = f", score {nodule.score:.2f}" if np.isfinite(nodule.score) else ""
            overlap = f", Dice {nodule.dice:.2f}" if np.isfinite(nodule.dice) else ""
            who = f"{nodule.name} ({nodule.readers} readers, {nodule.diameter_mm:.1f} mm)"
            words.append(f"{who}: {said}{score}{overlap}")
    return f"{'; '.join(words)}; {result.real_false[scan]} false positives"
