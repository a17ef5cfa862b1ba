"""Which algorithm reads which series of a study, and why it reads no other."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from dicom_node.core.expression import Expression
from dicom_node.core.geometry import plane_of, stack_slices
from dicom_node.core.image_type import is_derived, is_localizer
from dicom_node.core.priority import Priority, more_urgent
from dicom_node.core.screening import Screening
from dicom_node.core.study import Attributes, Instance, Series, Study

#: Fewer slices than this make no volume worth reading.
MINIMUM_INSTANCES = 20

#: Between the names of several routes whose choice is one job.
TOGETHER = " + "


@dataclass(frozen=True, kw_only=True)
class Route:
    """A rule: studies with a series that it wants are read by its algorithm; the meanings are shown to users."""

    name: str = field(metadata={"meaning": "our name for it", "rule": "name"})
    algorithm: str = field(metadata={"meaning": "the algorithm that reads", "rule": "name"})
    when: Expression = field(metadata={"meaning": "what a series' header must say: an expression over keywords"})
    send_to: tuple[str, ...] = field(
        default=(), metadata={"meaning": "peers that get the report; empty: every peer with results = true"}
    )
    priority: Priority = field(
        default=Priority.ROUTINE, metadata={"meaning": "STAT, HIGH, ROUTINE, MEDIUM or LOW; a study may be more urgent"}
    )
    minimum_instances: int = field(
        default=MINIMUM_INSTANCES, metadata={"meaning": "slices that a series must have", "allowed": (1, 100000)}
    )
    orientation: Literal["axial", "any"] = field(
        default="axial", metadata={"meaning": "axial, or any plane that the algorithm reads"}
    )
    screening: Screening = field(
        default="no",
        metadata={
            "meaning": "whether it is lung cancer screening, for Lung-RADS: no, or baseline, the first that is known"
        },
    )


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One job to be done: this algorithm on this series."""

    route: Route
    series: Series
    priority: Priority
    reason: str


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """Why a route does not read a series."""

    route: str
    series_instance_uid: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class RoutingDecision:
    """What is to be read of a study; an empty choice has a reason."""

    chosen: tuple[Choice, ...]
    not_chosen: tuple[Rejection, ...]
    #: Why nothing was chosen; empty when something was.
    reason: str


def route_study(study: Study, routes: Sequence[Route]) -> RoutingDecision:
    """Choose for each route the best series; the order in which instances came has no part in it."""
    requested = _requested_priority(study)
    # One look at the geometry of each series serves every route.
    candidates = [_candidate(series) for series in study.series]
    chosen: list[Choice] = []
    not_chosen: list[Rejection] = []
    for route in routes:
        obstacles = [(candidate, _obstacle(candidate, route)) for candidate in candidates]
        not_chosen.extend(_rejection(route, candidate, obstacle) for candidate, obstacle in obstacles if obstacle)
        fitting = sorted((candidate for candidate, obstacle in obstacles if not obstacle), key=lambda c: c.rank)
        for best in fitting[:1]:
            priority = more_urgent(route.priority, requested)
            praise = _praise(best, len(fitting))
            chosen.append(Choice(route=route, series=best.series, priority=priority, reason=praise))
            not_chosen.extend(_rejection(route, other, _lesser(other, best)) for other in fitting[1:])
    reason = "" if chosen else _summary(routes, not_chosen)
    return RoutingDecision(chosen=tuple(chosen), not_chosen=tuple(not_chosen), reason=reason)


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """A series as routes compare it."""

    series: Series
    attributes: Attributes
    plane: str | None
    problem: str | None
    thickness_mm: float
    #: The thickness, or the distance from slice to slice where that is more: thin slices far apart leave gaps.
    step_mm: float
    count: int
    number: float

    @property
    def rank(self) -> tuple[bool, float, int, float, str]:
        """Sorts the better first: a regular volume, thin and close slices, many, then the scanner's own order."""
        uid = self.series.series_instance_uid
        return (self.problem is not None, self.step_mm, -self.count, self.number, uid)


def _candidate(series: Series) -> _Candidate:
    slices = series.slices
    stack = stack_slices(slices)
    attributes = _attributes(series)
    thickness_mm = _number(attributes.get("SliceThickness"), stack.spacing_mm or math.inf)
    return _Candidate(
        series=series,
        attributes=attributes,
        plane=plane_of(attributes),
        problem=stack.problem,
        thickness_mm=thickness_mm,
        # Positions are rounded by their writers; hundredths of a millimetre decide nothing.
        step_mm=max(thickness_mm, round(stack.spacing_mm or 0.0, 2)),
        count=len(slices),
        number=_number(attributes.get("SeriesNumber"), math.inf),
    )


def _attributes(series: Series) -> Attributes:
    """The attributes of the image that speaks for the series: no overview or derived one as long as there are others.

    One such among the slices must not hide them from a route: whoever then reads the series says what is wrong with it.
    """

    def place(instance: Instance) -> tuple[bool, str]:
        attributes = instance.attributes
        return is_localizer(attributes) or is_derived(attributes), instance.sop_instance_uid

    return min(series.instances, key=place).attributes


def _number(value: object, otherwise: float) -> float:
    good = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
    return float(value) if good and isinstance(value, int | float) else otherwise


def _obstacle(candidate: _Candidate, route: Route) -> str:
    """Why a route cannot read a series at all; empty when it can."""
    attributes = candidate.attributes
    if failed := route.when.explain(attributes):
        return failed
    if is_localizer(attributes):
        return "it is a localizer"
    if is_derived(attributes):
        return "it is derived from other images"
    if route.orientation == "axial" and candidate.plane != "axial":
        return f"its slices are {candidate.plane or 'of unknown orientation'}, not axial"
    if candidate.series.is_multi_frame and len(candidate.series.instances) > 1:
        return f"it has {len(candidate.series.instances)} instances, some of many frames; a volume is one of them alone"
    if candidate.count < route.minimum_instances:
        return f"it has {candidate.count} slices, fewer than {route.minimum_instances}"
    return ""


def _praise(best: _Candidate, fitting: int) -> str:
    chosen = "the only series that fits" if fitting == 1 else f"the best of {fitting} series that fit"
    flaw = f", though {best.problem}" if best.problem else ""
    return f"{chosen}: {best.count} slices of {_extent(best)}{flaw}"


def _extent(candidate: _Candidate) -> str:
    """How thick the slices are, and how far apart where that is more."""
    apart = f" every {candidate.step_mm:g} mm" if candidate.step_mm > candidate.thickness_mm else ""
    return f"{candidate.thickness_mm:g} mm{apart}"


def _lesser(other: _Candidate, best: _Candidate) -> str:
    """Where another series first falls behind the best one."""
    if other.problem and not best.problem:
        return f"its slices make no regular volume: {other.problem}"
    if other.step_mm > best.step_mm:
        word = "further apart" if other.step_mm > other.thickness_mm else "thicker"
        return f"its slices are {word}: {_extent(other)} against {_extent(best)}"
    if other.count < best.count:
        return f"it has fewer slices: {other.count} against {best.count}"
    return "an equally good series comes before it"


def _rejection(route: Route, candidate: _Candidate, reason: str) -> Rejection:
    return Rejection(route=route.name, series_instance_uid=candidate.series.series_instance_uid, reason=reason)


def _summary(routes: Sequence[Route], rejections: Sequence[Rejection]) -> str:
    """Why no route reads the study, equal reasons counted."""
    if not routes:
        return "there are no routes; add one to the settings"
    counts = Counter((rejection.route, rejection.reason) for rejection in rejections)
    rows = (
        f"{route}: {reason}" + (f" ({count} series)" if count > 1 else "") for (route, reason), count in counts.items()
    )
    return f"no route reads a series of it; {'; '.join(rows)}" if counts else "the study has no series"


def _requested_priority(study: Study) -> Priority:
    """The most urgent Requested Procedure Priority (0040,1003) in the study; what is no term of it is passed over."""
    asked = {str(i.attributes.get("RequestedProcedurePriority")) for series in study.series for i in series.instances}
    return min((term for term in Priority if term in asked), key=list(Priority).index, default=Priority.LOW)
