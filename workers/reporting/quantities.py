"""Quantities and qualities: the numbers and codes that a report says of one finding (PS3.16 TID 1411, TID 1501)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from dicom_node.core import codes
from dicom_node.core.change import OTHERWISE_TIMES, Change, Size, Trend
from dicom_node.core.codes import Code
from dicom_node.core.finding import Border, Finding
from dicom_node.core.lung_rads import Category, Composition


@dataclass(frozen=True)
class Quantity:
    """One row of the table of measurements."""

    name: Code
    unit: Code
    #: None where the algorithm did not tell.
    value: Callable[[Finding], float | None]
    #: Decimals that the measurement supports: a tenth of a millimetre as Lung-RADS asks, whole HU, mm3 and percent.
    decimals: int = 0
    derivation: Code | None = None
    #: How it can be measured, and how it was; None: not known.
    methods: Mapping[Border, Code] = field(default_factory=dict)
    border: Callable[[Finding], Border | None] = lambda finding: finding.border


#: What told where the finding ends, of a diameter and of a volume (CID 7474, and codes of ours).
OF_DIAMETERS = MappingProxyType(
    {
        Border.ATTENUATION: codes.FILLED_BORDER,
        Border.SMOOTHED: codes.SMOOTHED_BORDER,
        Border.VOXELS: codes.VOXEL_BORDER,
    }
)
_OF_VOLUMES = MappingProxyType(dict.fromkeys(Border, codes.SUM_OF_VOXELS) | {Border.ATTENUATION: codes.PARTIAL_VOLUME})


def _millimetres(
    name: Code, value: Callable[[Finding], float | None], derivation: Code | None = None, **how: Any
) -> Quantity:
    return Quantity(name, codes.MILLIMETRE, value, 1, derivation, OF_DIAMETERS, **how)


def _then(value: Callable[[Size], float]) -> Callable[[Finding], float | None]:
    """A size of the finding in an earlier study."""
    return lambda finding: None if finding.change is None else value(finding.change.earlier)


def _since(value: Callable[[Change], float | None]) -> Callable[[Finding], float | None]:
    """What became of it since then."""
    return lambda finding: None if finding.change is None or finding.change.caveats else value(finding.change)


def _earlier_border(finding: Finding) -> Border | None:
    known = [border for border in Border if finding.change is not None and finding.change.earlier.method == border]
    return known[0] if known else None


QUANTITIES = (
    _millimetres(codes.LONG_AXIS, lambda finding: finding.long_axis.length_mm),
    _millimetres(codes.SHORT_AXIS, lambda finding: finding.short_axis.length_mm),
    _millimetres(codes.DIAMETER, lambda finding: finding.mean_diameter_mm, codes.MEAN),
    _millimetres(codes.MAXIMUM_3D_DIAMETER, lambda finding: finding.maximum_3d_diameter_mm),
    # Under a name of its own: who reads one diameter must not take it for the nodule's.
    _millimetres(
        codes.SOLID_DIAMETER,
        lambda finding: finding.solid_diameter_mm,
        codes.MEAN,
        border=lambda finding: finding.solid_border,
    ),
    Quantity(codes.VOLUME, codes.CUBIC_MILLIMETRE, lambda finding: finding.volume_mm3, methods=_OF_VOLUMES),
    Quantity(
        codes.ATTENUATION_COEFFICIENT, codes.HOUNSFIELD_UNIT, lambda finding: finding.mean_hu, derivation=codes.MEAN
    ),
    Quantity(
        codes.ATTENUATION_COEFFICIENT,
        codes.HOUNSFIELD_UNIT,
        lambda finding: finding.deviation_hu,
        derivation=codes.STANDARD_DEVIATION,
    ),
    _millimetres(codes.PRIOR_DIAMETER, _then(lambda size: size.mean_diameter_mm), codes.MEAN, border=_earlier_border),
    Quantity(
        codes.PRIOR_VOLUME,
        codes.CUBIC_MILLIMETRE,
        _then(lambda size: size.volume_mm3),
        methods=_OF_VOLUMES,
        border=_earlier_border,
    ),
    # How much it changed is told only where both sizes compare.
    Quantity(codes.DIAMETER_CHANGE, codes.MILLIMETRE, _since(lambda change: change.diameter_mm), 1, codes.MEAN),
    Quantity(codes.VOLUME_CHANGE, codes.PERCENT, _since(lambda change: change.volume_percent)),
    Quantity(codes.DOUBLING_TIME, codes.DAY, _since(lambda change: change.doubling_days)),
    Quantity(
        codes.DAYS_SINCE_PRIOR, codes.DAY, lambda finding: None if finding.change is None else finding.change.days
    ),
    Quantity(codes.CERTAINTY_OF_FINDING, codes.PERCENT, lambda finding: finding.score * 100),
    # An estimate of disease, which the detector's score is not.
    Quantity(
        codes.PROBABILITY_OF_CANCER,
        codes.PERCENT,
        lambda finding: None if finding.malignancy is None else finding.malignancy * 100,
    ),
)

#: Those that are drawn where a group has lines for them.
AXES = (codes.LONG_AXIS, codes.SHORT_AXIS)

#: RadLex has codes for these; the standard has none.
COMPOSITIONS = MappingProxyType(
    {
        Composition.SOLID: codes.SOLID,
        Composition.PART_SOLID: codes.PARTIALLY_SOLID,
        Composition.NON_SOLID: codes.NON_SOLID,
    }
)
#: What became of it since an earlier study.
TRENDS = MappingProxyType(
    {
        Trend.INCREASED: codes.INCREASE_IN_SIZE,
        Trend.DECREASED: codes.DECREASE_IN_SIZE,
        Trend.UNCHANGED: codes.NO_SIGNIFICANT_CHANGE,
    }
)
LUNG_RADS = MappingProxyType(
    {
        Category.BENIGN: codes.LUNG_RADS_2,
        Category.PROBABLY_BENIGN: codes.LUNG_RADS_3,
        Category.SUSPICIOUS_A: codes.LUNG_RADS_4A,
        Category.SUSPICIOUS_B: codes.LUNG_RADS_4B,
    }
)

#: What is said of a finding in codes: each row's name, and its value or None where the algorithm did not tell.
QUALITIES: tuple[tuple[Code, Callable[[Finding], Code | None]], ...] = (
    (codes.COMPOSITION, lambda finding: None if finding.composition is None else COMPOSITIONS[finding.composition]),
    (codes.MARGINS, lambda finding: finding.margin),
    (codes.CHANGE, lambda finding: _change(finding)),
    (codes.COMPARABILITY, lambda finding: _comparability(finding)),
    (codes.LUNG_RADS_ASSESSMENT, lambda finding: None if finding.lung_rads is None else LUNG_RADS[finding.lung_rads]),
)


def _change(finding: Finding) -> Code | None:
    """What became of it since an earlier study; None where that is not to be told."""
    trend = None if finding.change is None else finding.change.trend
    if trend is not None:
        return TRENDS[trend]
    return codes.NEW_FINDING if finding.is_new else None


def _comparability(finding: Finding) -> Code | None:
    """Why its sizes then and now are no two numbers of one kind; None where they are."""
    if finding.change is None or not finding.change.caveats:
        return None
    return codes.MEASURED_OTHERWISE if finding.change.times >= OTHERWISE_TIMES else codes.CONTRAST_OTHERWISE
