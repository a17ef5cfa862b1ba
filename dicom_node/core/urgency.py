"""Urgency: how soon a person should look at what was found, by rules that a hospital sets, each with its reason.

A rule asks for everything that it names of one and the same finding. What is not known of a finding fulfils no rule,
and no rule makes a study less urgent: a study without a known reason keeps the priority that it has. Decided here and
nowhere else: reports, pages and worklist say what this says.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from dicom_node.core.codes import (
    ACTIONABLE_CATEGORY_1,
    ACTIONABLE_CATEGORY_2,
    ACTIONABLE_CATEGORY_3,
    ANATOMICAL_STRUCTURE,
    Code,
)
from dicom_node.core.finding import Finding
from dicom_node.core.lung_rads import Composition, in_tenths
from dicom_node.core.priority import Priority

#: How soon findings of this priority are to be seen (CID 7035: within minutes, hours, days), and in words.
CATEGORIES = MappingProxyType(
    {
        Priority.STAT: (ACTIONABLE_CATEGORY_1, "within minutes"),
        Priority.HIGH: (ACTIONABLE_CATEGORY_2, "within hours"),
        Priority.ROUTINE: (ACTIONABLE_CATEGORY_3, "within days"),
        Priority.MEDIUM: (ACTIONABLE_CATEGORY_3, "within days"),
        Priority.LOW: (ACTIONABLE_CATEGORY_3, "within days"),
    }
)

#: Categories of what is outlined though nothing is wrong with it: a normal organ is no reason to look soon.
_NORMAL = frozenset({(ANATOMICAL_STRUCTURE.value, ANATOMICAL_STRUCTURE.scheme)})


def _asked(default: float, meaning: str, allowed: tuple[float, float]) -> float:
    number: float = field(default=default, metadata={"meaning": meaning, "allowed": allowed})
    return number


@dataclass(frozen=True, kw_only=True)
class TriageRule:
    """What a finding must be like to make a study urgent; the meanings are shown to users."""

    name: str = field(metadata={"meaning": "the reason, as reports say it", "rule": "name"})
    priority: Priority = field(metadata={"meaning": "how urgent such a finding is: STAT, HIGH or ROUTINE"})
    algorithm: str = field(
        default="",
        metadata={"meaning": "findings of this algorithm alone, and the organs it outlines; empty: of any, no organs"},
    )
    minimum_diameter_mm: float = _asked(0.0, "least mean diameter; 0: any", (0, 1000))
    minimum_solid_diameter_mm: float = _asked(
        0.0, "least mean diameter of the solid part, where known; 0: any", (0, 1000)
    )
    compositions: tuple[Composition, ...] = field(
        default=(), metadata={"meaning": "SOLID, PART_SOLID or NON_SOLID, where known; empty: any"}
    )
    maximum_doubling_days: float = _asked(
        0.0, "longest time in which its volume doubled, where an earlier one is known; 0: any", (0, 1e5)
    )
    minimum_growth_mm: float = _asked(
        0.0, "least growth of the mean diameter since an earlier study, where it is called growth; 0: any", (0, 1000)
    )
    new: bool = field(
        default=False, metadata={"meaning": "only what was not marked where an earlier study looked; false: any"}
    )
    minimum_score: float = _asked(0.0, "least certainty of the detector; 0: any", (0, 1))
    minimum_malignancy: float = _asked(0.0, "least probability of cancer, where an algorithm tells it; 0: any", (0, 1))
    minimum_findings: int = field(default=1, metadata={"meaning": "how many findings must be so", "allowed": (1, 1000)})


@dataclass(frozen=True, kw_only=True)
class Urgency:
    """How urgent a study is for what was found in it."""

    priority: Priority
    #: A whole sentence without a full stop.
    reason: str

    @property
    def code(self) -> Code:
        """Of CID 7035."""
        return CATEGORIES[self.priority][0]


#: Whatever the rules say, what was marked is to be seen some day soon.
_ANYTHING = TriageRule(name="something was marked", priority=Priority.ROUTINE)

#: The rules where the settings have none. Size alone is none of them: of the largest that a detector marks, most are
#: vessels, and an alarm that is mostly wrong is soon not heard.
DEFAULT_RULES = (
    TriageRule(name="its volume doubled within 400 days", priority=Priority.HIGH, maximum_doubling_days=400.0),
    TriageRule(name="its mean diameter grew by more than 1.5 mm", priority=Priority.HIGH, minimum_growth_mm=1.6),
    TriageRule(
        name="its solid part measures 8 mm or more",
        priority=Priority.HIGH,
        compositions=(Composition.PART_SOLID,),
        minimum_solid_diameter_mm=8.0,
    ),
)


def is_abnormal(finding: Finding) -> bool:
    """Whether a finding asks for a look by itself, as an organ that was outlined does not."""
    return (finding.category.value, finding.category.scheme) not in _NORMAL


def urgency_of(
    findings: Sequence[Finding], rules: Sequence[TriageRule] = DEFAULT_RULES, algorithm: str = ""
) -> Urgency | None:
    """The most urgent rule that findings fulfil, of equally urgent ones the first.

    None where nothing was marked but organs that no rule asks for. A rule that names no algorithm asks for no organs:
    a diameter that is large for a nodule is not for a spleen.
    """
    known = (*rules, _ANYTHING)
    fulfilled = [found for rule in known if (found := _fulfilled(findings, rule, algorithm)) is not None]
    order = list(Priority)
    return min(fulfilled, key=lambda found: order.index(found.priority), default=None)


def _fulfilled(findings: Sequence[Finding], rule: TriageRule, algorithm: str) -> Urgency | None:
    if rule.algorithm and rule.algorithm != algorithm:
        return None
    asked = findings if rule.algorithm else [finding for finding in findings if is_abnormal(finding)]
    such = [finding for finding in asked if all(_holds(finding, rule))]
    if len(such) < rule.minimum_findings:
        return None
    soon = CATEGORIES[rule.priority][1]
    largest = max(such, key=lambda finding: finding.mean_diameter_mm)
    first = f"{largest.name}, of {largest.mean_diameter_mm:.1f} mm mean diameter"
    others = f" and {len(such) - 1} more" if len(such) > 1 else ""
    return Urgency(priority=rule.priority, reason=f"{first}{others}: {rule.name}; to be seen {soon}")


def _in_tenths(size_mm: float | None) -> float | None:
    return None if size_mm is None else in_tenths(size_mm)


#: What a finding must reach, and what of the rule says how much. A size is compared as the report says it: what reads
#: 8.0 mm there is 8 mm here and by Lung-RADS.
_AT_LEAST: tuple[tuple[Callable[[Finding], float | None], str], ...] = (
    (lambda finding: _in_tenths(finding.mean_diameter_mm), "minimum_diameter_mm"),
    (lambda finding: _in_tenths(finding.solid_diameter_mm), "minimum_solid_diameter_mm"),
    (lambda finding: None if finding.change is None else finding.change.growth_mm, "minimum_growth_mm"),
    (lambda finding: finding.score, "minimum_score"),
    (lambda finding: finding.malignancy, "minimum_malignancy"),
)


def _holds(finding: Finding, rule: TriageRule) -> Iterator[bool]:
    for value_of, name in _AT_LEAST:
        least, value = getattr(rule, name), value_of(finding)
        yield not least or (value is not None and value >= least)
    days = finding.doubling_days
    # A shrinking one has a negative time.
    yield not rule.maximum_doubling_days or (days is not None and 0 < days <= rule.maximum_doubling_days)
    yield not rule.new or finding.is_new
    yield not rule.compositions or (finding.composition is not None and finding.composition in rule.compositions)
