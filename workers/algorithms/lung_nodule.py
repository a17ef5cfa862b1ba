"""Lung nodules on chest CT: find, look again, outline and measure."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from dicom_node.core.codes import LEFT, LUNG, MORPHOLOGICALLY_ABNORMAL_STRUCTURE, NODULE, RIGHT, Code
from dicom_node.core.errors import BundleInvalid, NotApplicable
from dicom_node.core.finding import Finding, Point
from workers.algorithms import Predictor, Prepared, Reading
from workers.algorithms.nodule_bundle import outcomes, reader_estimate, second_look
from workers.algorithms.stated_calibration import stated_calibration
from workers.bundles import Bundle
from workers.composition import Consistence, consistence
from workers.composition import in_words as composition_in_words
from workers.dependence import Dependence, dependence
from workers.lungs import LEFT_LUNG, RIGHT_LUNG, Sides
from workers.measurement import Measurements, measure
from workers.outline import outline
from workers.preprocessing import (
    GRID_MM,
    HU_WINDOW,
    Candidate,
    Spacing,
    candidate_in,
    candidates,
    lung_mask,
    normalise,
    resample,
)
from workers.reader_estimate import Estimate, features_of
from workers.reader_estimate import in_words as ratings_in_words
from workers.volume import Region, Volume

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

#: The bundle is trained on slices up to 5 mm; the rest is what Decimal Strings round.
_THICKEST_MM = 5.05
_FEWEST_SLICES = 20
#: Half the height of a lung, and the width of one.
_SHORTEST_MM = 80.0
_NARROWEST_MM = 150.0
#: Cosine of 30 degrees: farther from axial than any table or head holder turns a patient.
_LEAST_AXIAL = 0.866
#: Both lungs of a small adult hold more; less is a slab of lung in another examination.
_LEAST_LUNG_ML = 500.0
_MOST_FINDINGS = 20
#: A sphere of 3 mm, the least that the readers of LIDC-IDRI outlined.
_LEAST_VOLUME_MM3 = 14.0
#: Share of an outline that may lie in one of higher score before both are one nodule.
_MOST_OVERLAP = 0.5
#: By axis, the two others.
_OTHERS = ((1, 2), (0, 2), (0, 1))
#: What a lung's side is called.
_SIDES = MappingProxyType({RIGHT_LUNG: RIGHT, LEFT_LUNG: LEFT})


class LungNodule:
    """The algorithm `lung_nodule`: a network's candidates, outlined at the series' resolution and measured."""

    name = "lung_nodule"

    def __init__(self, bundle: Bundle, predictor: Predictor) -> None:
        """Take thresholds from the bundle; its grid and window must be those that this software prepares."""
        _check_preparation(bundle)
        self._candidate_threshold = bundle.number("postprocessing", "candidate_threshold")
        self._report_threshold = bundle.number("postprocessing", "report_threshold")
        #: Of the score as it is said; 0: as the bundle says.
        self._asked_threshold = bundle.settings.report_threshold
        self._calibration = stated_calibration(bundle)
        self._predictor = predictor
        self._second_look = second_look(bundle, predictor.beat)
        self._estimate, self._outcomes = reader_estimate(bundle), outcomes(bundle)

    def reads(self, volume: Volume) -> None:
        """Raise NotApplicable unless the series is axial, thin and large enough to hold a chest."""
        depth, height, width = (n * s for n, s in zip(volume.voxels.shape, volume.spacing_mm, strict=True))
        normal = volume.affine[:3, 2] / volume.spacing_mm[0]
        if abs(float(normal[2])) < _LEAST_AXIAL:
            raise NotApplicable("the slices are not axial; the network was trained on axial slices")
        if volume.spacing_mm[0] > _THICKEST_MM:
            raise NotApplicable(f"slices are {volume.spacing_mm[0]:.1f} mm apart; at most 5 mm are read")
        if len(volume.voxels) < _FEWEST_SLICES or depth < _SHORTEST_MM:
            found = f"{len(volume.voxels)} slices over {depth:.0f} mm"
            raise NotApplicable(f"{found} are too few; {_FEWEST_SLICES} slices over {_SHORTEST_MM:.0f} mm are needed")
        if min(height, width) < _NARROWEST_MM:
            raise NotApplicable(f"the field of view of {width:.0f} x {height:.0f} mm is too small for a chest")

    def prepare(self, volume: Volume) -> Prepared:
        """The series on the network's grid, and its lungs; raises NotApplicable where there are none."""
        self.reads(volume)
        hu = resample(volume.voxels, volume.spacing_mm)
        lungs = lung_mask(hu, GRID_MM)
        if _millilitres(lungs) < _LEAST_LUNG_ML:
            raise NotApplicable("no lungs were found in the series")
        return Prepared(voxels=normalise(hu), where=lungs)

    def read(self, volume: Volume, prepared: Prepared | None = None) -> Reading:
        """Find, outline and measure nodules; raises NotApplicable where there are no lungs."""
        given = prepared or self.prepare(volume)
        probability = self._predictor.probability(given.voxels, given.where)
        return self.findings(probability, given, volume)

    def marks(self, probability: Floats, prepared: Prepared) -> list[Candidate]:
        """The candidates in a network's output, looked at again where the bundle does so, the best first."""
        marked = candidates(probability, prepared.where, self._candidate_threshold)
        return marked if self._second_look is None else self._second_look(prepared.voxels, marked)

    def findings(self, probability: Floats, prepared: Prepared, volume: Volume) -> Reading:
        """The nodules that a network's output over the grid shows in a volume, by falling score.

        Thresholds are of the scores as they come; what a finding says is the calibrated one.
        """
        lungs, marked = prepared.where, self.marks(probability, prepared)
        found = [candidate for candidate in marked if self._is_reported(candidate.score)]
        labels = np.zeros(volume.voxels.shape, dtype=np.uint8)
        findings: list[Finding] = []
        estimates: list[tuple[int, Estimate]] = []
        consistences: list[tuple[int, Consistence]] = []
        seeds: dict[int, Region] = {}
        not_reported = 0
        sides = Sides(lungs, volume)
        for candidate in found:
            seed = Region(box=candidate.region, mask=candidate.mask)
            region = outline(volume.voxels, volume.spacing_mm, probability, lungs, seed)
            coarse = _volume_mm3(region.mask, volume) < _LEAST_VOLUME_MM3
            if coarse:
                region = as_marked(seed, volume.voxels.shape, volume.spacing_mm)
            if _is_another(region, labels):
                continue
            own = region.mask & (labels[region.box] == 0)
            if not own.any() or len(findings) == _MOST_FINDINGS:
                not_reported += 1
                continue
            number = len(findings) + 1
            labels[region.box][own] = number
            seeds[number] = seed
            outlined = Region(box=region.box, mask=own)
            # Of an outline that attenuation did not bound, neither density nor shape says anything.
            consists = Consistence(composition=None) if coarse else consistence(outlined, volume)
            consistences.append((number, consists))
            measured = measure(outlined, volume, by_attenuation=not coarse)
            told = None if coarse else self._estimated(outlined, volume)
            finding = _finding(number, self._certainty(candidate.score), measured, sides, consists)
            findings.append(replace(finding, malignancy=told.value if told and self._outcomes else None))
            estimates += [(number, told)] if told else []
        reading = Reading(
            findings=tuple(findings),
            labels=labels,
            parameters=self._parameters(),
            not_reported=not_reported,
            searched_ml=_millilitres(lungs),
            searched=lungs,
            further_remarks=_remarks(consistences, estimates, self._outcomes),
            marked=seeds,
        )
        return replace(reading, dependences=partial(self._dependences, reading, prepared, volume.spacing_mm))

    def _dependences(
        self, reading: Reading, prepared: Prepared, spacing_mm: Spacing, out_of_time: Callable[[], bool]
    ) -> dict[int, Dependence]:
        """On what each finding's score depended, the highest score first, as far as the time goes."""
        told: dict[int, Dependence] = {}
        for number, seed in reading.marked.items():
            if out_of_time():
                break
            outlined = on_grid(reading.labels == number, spacing_mm, prepared.where.shape) or seed
            score_of = partial(self._score_again, seed)
            voxels, lungs = prepared.voxels, prepared.where
            told[number] = dependence(voxels, lungs, outlined, seed.box, spacing_mm[0], score_of)
        return told

    def _score_again(self, seed: Region, piece: Floats, box: tuple[slice, ...]) -> float:
        """The score, as findings have it, of what was marked at a place of a piece of the grid that lies in a box."""
        probability = self._predictor.opinion(piece)
        k, j, i = (slice(s.start - b.start, s.stop - b.start) for s, b in zip(seed.box, box, strict=True))
        mark = candidate_in(probability, (k, j, i), seed.mask)
        (looked,) = [mark] if self._second_look is None else self._second_look(piece, [mark])
        return min(1.0, self._certainty(looked.score))

    def _is_reported(self, score: float) -> bool:
        if self._asked_threshold:
            return self._certainty(score) >= self._asked_threshold
        return score >= self._report_threshold

    def _certainty(self, score: float) -> float:
        """What a report says of a candidate's score: calibrated, where the bundle says how."""
        return score if self._calibration is None else float(self._calibration(np.array(score)))

    def _estimated(self, region: Region, volume: Volume) -> Estimate | None:
        """What readers would have said of a nodule, where the bundle says and knows its like."""
        if self._estimate is None:
            return None
        features = features_of(region, volume.spacing_mm)
        return self._estimate(features) if features is not None and self._estimate.knows(features) else None

    def _parameters(self) -> tuple[tuple[str, str], ...]:
        asked = (("report threshold of the settings", f"{self._asked_threshold:g}"),) if self._asked_threshold else ()
        look = "" if self._second_look is None else self._second_look.number_format
        # All of it is a part of the report's identity: scores in another format differ in the third digit.
        formats = (("number format", self._predictor.number_format), ("number format of the second look", look))
        return (
            ("report threshold", f"{self._report_threshold:g}"),
            *asked,
            ("candidate threshold", f"{self._candidate_threshold:g}"),
            *((("calibration", self._calibration.method),) if self._calibration else ()),
            *((name, said) for name, said in formats if said),
        )


def _remarks(
    consistences: Sequence[tuple[int, Consistence]], estimates: Sequence[tuple[int, Estimate]], outcomes: str
) -> tuple[str, ...]:
    ratings = ratings_in_words(estimates, outcomes) if estimates else ""
    return tuple(remark for remark in (composition_in_words(consistences), ratings) if remark)


def as_marked(seed: Region, shape: tuple[int, ...], spacing_mm: Spacing) -> Region:
    """The voxels [k, j, i] of a series whose centres lie in a region of the network's grid; possibly none.

    What the network is sure of and attenuation does not bound: better a coarse outline than none.
    """
    nearest, box = [], []
    for where, count, mm, grid in zip(seed.box, shape, spacing_mm, GRID_MM, strict=True):
        index = np.floor(np.arange(count) * mm / grid + 0.5).astype(int) - where.start
        there = np.flatnonzero((index >= 0) & (index < where.stop - where.start))
        nearest.append(index[there])
        box.append(slice(int(there[0]), int(there[-1]) + 1) if there.size else slice(0, 0))
    return Region(box=(box[0], box[1], box[2]), mask=seed.mask[np.ix_(*nearest)])


def on_grid(mask: Mask, spacing_mm: Spacing, shape: tuple[int, ...]) -> Region | None:
    """The voxels of the network's grid [k, j, i] whose nearest voxel of a series is in a mask; None for none."""
    nearest = [
        np.clip(np.floor(np.arange(count) * grid / mm + 0.5).astype(int), 0, last - 1)
        for count, mm, grid, last in zip(shape, spacing_mm, GRID_MM, mask.shape, strict=True)
    ]
    shadows = [np.asarray(mask.any(axis=others)) for others in _OTHERS]
    there = [np.flatnonzero(shadow[index]) for shadow, index in zip(shadows, nearest, strict=True)]
    if not all(found.size for found in there):
        return None
    k, j, i = (slice(int(found[0]), int(found[-1]) + 1) for found in there)
    region = mask[np.ix_(nearest[0][k], nearest[1][j], nearest[2][i])]
    return Region(box=(k, j, i), mask=region) if region.any() else None


def laterality(place: Point, sides: Sides) -> Code | None:
    """The side on which a place of the patient lies, or None where the lungs do not tell."""
    return _SIDES.get(sides.of(place))


def _is_another(region: Region, labels: NDArray[np.uint8]) -> bool:
    """Whether an outline lies mostly in that of a finding of higher score: both are one nodule."""
    taken = region.mask & (labels[region.box] > 0)
    return bool(taken.sum() > _MOST_OVERLAP * region.mask.sum())


def _volume_mm3(mask: Mask, volume: Volume) -> float:
    return float(mask.sum() * np.prod(volume.spacing_mm))


def _millilitres(lungs: Mask) -> float:
    return float(lungs.sum() * np.prod(GRID_MM) / 1000)


def _finding(number: int, score: float, measured: Measurements, sides: Sides, consists: Consistence) -> Finding:
    return Finding(
        number=number,
        concept=NODULE,
        category=MORPHOLOGICALLY_ABNORMAL_STRUCTURE,
        site=LUNG,
        laterality=laterality(measured.centre, sides),
        score=min(1.0, score),
        **vars(measured),
        composition=consists.composition,
        solid_diameter_mm=consists.solid_diameter_mm,
        solid_border=consists.solid_border,
    )


def _check_preparation(bundle: Bundle) -> None:
    prepared = bundle.configuration.get("preprocessing") or {}
    wanted = {"grid_mm": list(GRID_MM), "hu_window": list(HU_WINDOW)}
    for key, value in wanted.items():
        if list(prepared.get(key) or ()) != value:
            found = f"bundle {bundle.name} was made for {key} {prepared.get(key)}"
            raise BundleInvalid(f"{found}; this software prepares {value}: install a bundle that fits")
