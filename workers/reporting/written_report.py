"""Written report: the objects of one report as they were read back from their files, with what they must agree with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from pydicom import Dataset

from dicom_node.core.codes import Code
from dicom_node.core.outcome import Outcome
from workers.reporting.content_tree import name_of, walk
from workers.reporting.evidence import Evidence
from workers.reporting.segments import Segment
from workers.reporting.uids import StandingUids


@dataclass(frozen=True, kw_only=True)
class WrittenReport:
    """A report's objects as they were read back, and what they must agree with."""

    structured_report: Dataset
    segmentation: Dataset | None
    evidence: Evidence
    outcome: Outcome
    #: Of the structured report, and of the segmentation where there is one.
    report_uids: StandingUids
    segmentation_uids: StandingUids | None = None
    #: The voxels of every finding, by its Tracking UID, whichever segmentation a peer gets; None if it cannot be read.
    segments: Mapping[str, Segment] | None = field(default_factory=dict)

    @property
    def objects(self) -> tuple[Dataset, ...]:
        """Every object of the report."""
        return (self.structured_report,) if self.segmentation is None else (self.segmentation, self.structured_report)

    # Walked once for all rules: that takes longer than what they look at.
    @cached_property
    def items(self) -> Mapping[tuple[str, str], list[Dataset]]:
        """The content items of the report's tree, depth first, by value and scheme of their names; "" without one."""
        found: dict[tuple[str, str], list[Dataset]] = {}
        for item in walk(self.structured_report):
            found.setdefault(name_of(item), []).append(item)
        return found

    def named(self, name: Code) -> list[Dataset]:
        """The content items of this name."""
        return self.items.get((name.value, name.scheme), [])
