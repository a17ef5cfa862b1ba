"""Order: a report's items as a reader looks for them; first what was found, how large, what became of it, and where.

A report stands in the order of its template, which begins with its language and who observed (PS3.16 TID 1500).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from dicom_node.core import codes
from dicom_node.web.report_text import Item, ReportText

#: Of a finding's group (PS3.16 TID 1410, 1411 and 1501).
_GROUP, _TRACKING_IDENTIFIER, _TRACKING_UID = "125007", "112039", "112040"
_SITE = codes.Code("363698007", "SCT", "Finding Site")

#: So begins what a viewer's tool calls a group, which is no name of a finding.
_TOOL = "Cornerstone"

#: Of the whole examination: how urgent, which category, what to do, and in words; how the reading went stands behind.
_ASSESSMENT = (
    codes.COMMUNICATION_OF_CRITICAL_RESULTS,
    codes.LUNG_RADS_ASSESSMENT,
    codes.RECOMMENDATION,
    codes.RECOMMENDED_INTERVAL,
    codes.COMMENT,
    codes.PROCESSING_SUMMARY,
    codes.IMAGE_QUALITY,
    codes.PRIOR_REPORT,
)

#: Of one finding; what is not named here, such as algorithms and references, stands behind in its own order.
_OF_FINDING = (
    codes.FINDING,
    codes.COMPOSITION,
    codes.MARGINS,
    codes.LONG_AXIS,
    codes.SHORT_AXIS,
    codes.DIAMETER,
    codes.SOLID_DIAMETER,
    codes.MAXIMUM_3D_DIAMETER,
    codes.VOLUME,
    codes.CHANGE,
    codes.COMPARABILITY,
    codes.PRIOR_DIAMETER,
    codes.DIAMETER_CHANGE,
    codes.PRIOR_VOLUME,
    codes.VOLUME_CHANGE,
    codes.DOUBLING_TIME,
    codes.DAYS_SINCE_PRIOR,
    _SITE,
    codes.LUNG_RADS_ASSESSMENT,
    codes.ATTENUATION_COEFFICIENT,
    codes.CERTAINTY_OF_FINDING,
    codes.PROBABILITY_OF_CANCER,
    codes.AREA,
)

#: A finding's items by their code, of several the first.
_Found = Mapping[str, Item]


@dataclass(frozen=True, kw_only=True)
class FindingText:
    """One finding, of whatever groups tell of it."""

    name: str
    #: By the names of the columns; empty where the report does not say.
    cells: Mapping[str, str]
    items: tuple[Item, ...]


@dataclass(frozen=True, kw_only=True)
class Arranged:
    """A report in this order."""

    assessment: tuple[Item, ...]
    findings: tuple[FindingText, ...]
    #: Those of which any finding says something.
    columns: tuple[str, ...]
    #: How it is known: who observed, what was examined, and everything that stands nowhere above.
    rest: tuple[Item, ...]


def arranged(report: ReportText) -> Arranged:
    """Every item of the report, once."""
    assessment, groups, rest = list[Item](), list[Item](), list[Item]()
    for item in report.items:
        if _is_container(item, codes.QUALITATIVE_EVALUATIONS.value):
            assessment.extend(item.items)
        elif _is_container(item, codes.IMAGING_MEASUREMENTS.value):
            groups.extend(one for one in item.items if _is_container(one, _GROUP))
            rest.extend(one for one in item.items if not _is_container(one, _GROUP))
        else:
            rest.append(item)
    findings = tuple(_finding(number, some) for number, some in enumerate(_by_finding(groups), 1))
    return Arranged(
        assessment=_sorted(assessment, _ASSESSMENT),
        findings=findings,
        columns=tuple(name for name in COLUMNS if any(finding.cells[name] for finding in findings)),
        rest=tuple(rest),
    )


def _is_container(item: Item, code: str) -> bool:
    """Whether it says nothing itself, so that its items can stand elsewhere."""
    return item.code == code and not item.value


def _by_finding(groups: Iterable[Item]) -> Iterable[Sequence[Item]]:
    """Groups of one Tracking Unique Identifier are of one finding; without one each is for itself."""
    found: dict[str, list[Item]] = {}
    for number, group in enumerate(groups):
        uid = next((item.value for item in group.items if item.code == _TRACKING_UID), f"group {number}")
        found.setdefault(uid, []).append(group)
    return found.values()


def _finding(number: int, groups: Sequence[Item]) -> FindingText:
    items = [item for group in groups for item in group.items]
    found: dict[str, Item] = {}
    for item in items:
        found.setdefault(item.code, item)
    names = [item.value for item in items if item.code == _TRACKING_IDENTIFIER]
    name = next((name for name in names if not name.startswith(_TOOL)), _of(found, codes.COMMENT))
    cells = {column: cell(found) for column, cell in COLUMNS.items()}
    return FindingText(name=name or f"Finding {number}", cells=cells, items=_sorted(_once(items), _OF_FINDING))


def _once(items: Iterable[Item]) -> list[Item]:
    """Two groups of a finding say some things twice."""
    return list(dict.fromkeys(items))


def _sorted(items: Iterable[Item], order: Sequence[codes.Code]) -> tuple[Item, ...]:
    ranks = {code.value: rank for rank, code in enumerate(order)}
    return tuple(sorted(items, key=lambda item: ranks.get(item.code, len(ranks))))


def _of(found: _Found, code: codes.Code) -> str:
    item = found.get(code.value)
    return "" if item is None else item.value


def _kind(found: _Found) -> str:
    said = (_of(found, code) for code in (codes.FINDING, codes.COMPOSITION, codes.MARGINS))
    return ", ".join(filter(None, said))


def _size(found: _Found) -> str:
    axes = [axis for axis in (_of(found, codes.LONG_AXIS), _of(found, codes.SHORT_AXIS)) if axis]
    said = (
        " × ".join([*(axis.removesuffix(" mm") for axis in axes[:-1]), *axes[-1:]]),
        _before("mean ", _of(found, codes.DIAMETER)),
        _before("solid part ", _of(found, codes.SOLID_DIAMETER)),
    )
    return ", ".join(filter(None, said))


def _change(found: _Found) -> str:
    then, days = _of(found, codes.PRIOR_DIAMETER), _of(found, codes.DAYS_SINCE_PRIOR)
    doubling = _of(found, codes.DOUBLING_TIME)
    said = (
        _of(found, codes.CHANGE),
        # No growth is told without what it may come of.
        _of(found, codes.COMPARABILITY),
        _before("mean ", then) + (f" {_days(days)} before" if then and days else ""),
        _signed(_of(found, codes.DIAMETER_CHANGE)),
        _before("volume ", _signed(_of(found, codes.VOLUME_CHANGE))),
        "" if doubling.startswith(("-", "0 ")) else _before("doubled in ", _days(doubling)),
    )
    return ", ".join(filter(None, said))


def _place(found: _Found) -> str:
    site = found.get(_SITE.value)
    if site is None:
        return ""
    sides = [item.value for item in site.items if item.code == codes.LATERALITY.value]
    return " ".join([*sides, site.value])


def _before(words: str, value: str) -> str:
    return words + value if value else ""


def _signed(value: str) -> str:
    return value if not value or value[0] in "+-" else f"+{value}"


def _days(value: str) -> str:
    return "1 day" if value == "1 d" else f"{value.removesuffix(' d')} days" if value.endswith(" d") else value


#: In this order.
COLUMNS: Mapping[str, Callable[[_Found], str]] = {
    "Finding": _kind,
    "Size": _size,
    "Volume": lambda found: _of(found, codes.VOLUME),
    "Change since the prior study": _change,
    "Place": _place,
    "Category": lambda found: _of(found, codes.LUNG_RADS_ASSESSMENT),
    "Density": lambda found: _of(found, codes.ATTENUATION_COEFFICIENT),
    "Certainty": lambda found: _of(found, codes.CERTAINTY_OF_FINDING),
    "Probability of cancer": lambda found: _of(found, codes.PROBABILITY_OF_CANCER),
}
