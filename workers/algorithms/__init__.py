"""Algorithms: one module for each clinical question, all of one shape."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dicom_node.core.finding import Finding
from dicom_node.core.outcome import Statement
from workers.dependence import Dependence
from workers.volume import Region, Volume


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What an algorithm saw in one series."""

    findings: tuple[Finding, ...]
    #: Of the series' shape [k, j, i]: a voxel of finding n holds n, all others 0.
    labels: NDArray[np.uint8]
    #: The settings that shaped the result, as name and value, for the report; nothing that varies with the series.
    parameters: tuple[tuple[str, str], ...]
    #: Marks of the network above the report threshold that are no finding: they could not be outlined, or are too many.
    not_reported: int = 0
    #: How much lung was searched; 0 where the algorithm does not tell.
    searched_ml: float = 0.0
    #: Where it was looked, on the network's grid [k, j, i]; None where the algorithm does not tell.
    searched: NDArray[np.bool_] | None = None
    #: What of the series was not read, as a sentence without a full stop; empty where all was.
    incomplete: str = ""
    #: What is looked for, in the singular.
    noun: str = "nodule"
    #: What is said of the images as a whole.
    statements: tuple[Statement, ...] = ()
    #: Sentences for the report that hold whatever was found.
    further_remarks: tuple[str, ...] = ()
    #: By a finding's number, where on the network's grid its score was read.
    marked: Mapping[int, Region] = field(default_factory=dict)
    #: Runs the network again, and says on what each finding's score depended, until it is told that there is no time
    #: left; None where the algorithm cannot tell. May raise OutOfDeviceMemory.
    dependences: Callable[[Callable[[], bool]], Mapping[int, Dependence]] | None = None

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a person who reads the report should know beside the findings, as sentences."""
        remarks = []
        if self.searched_ml:
            remarks.append(f"{self.searched_ml:.0f} ml of lung were searched.")
        if self.not_reported:
            marks = "mark is" if self.not_reported == 1 else "marks are"
            remarks.append(f"{self.not_reported} further {marks} not outlined here.")
        return (*remarks, *self.further_remarks)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What the network is given of a series, on its own grid [k, j, i]."""

    voxels: NDArray[np.float32]
    #: Where it is to look.
    where: NDArray[np.bool_]


class Predictor(Protocol):
    """A network at work: probabilities of what it was trained to find."""

    @property
    def number_format(self) -> str:
        """What it computes in where that is not full precision; else empty."""
        ...

    def opinion(self, piece: NDArray[np.float32]) -> NDArray[np.float32]:
        """0 to 1 for every voxel of a piece of the network's grid, looked at alone; may raise OutOfDeviceMemory."""
        ...

    def probability(self, voxels: NDArray[np.float32], where: NDArray[np.bool_]) -> NDArray[np.float32]:
        """0 to 1 for every voxel of the network's grid; what is far from `where` may be left at 0."""
        ...

    def beat(self, step: str) -> None:
        """Say that the reading goes on, at a step; what it raises ends the reading."""
        ...


class Algorithm(Protocol):
    """One clinical question."""

    @property
    def name(self) -> str:
        """What routes call it."""
        ...

    def reads(self, volume: Volume) -> None:
        """Raise NotApplicable for a series that the algorithm is not made for."""
        ...

    def prepare(self, volume: Volume) -> Prepared:
        """All that comes before the network, so that it can be done while a study is still waited for.

        Raises NotApplicable as `reads` does.
        """
        ...

    def read(self, volume: Volume, prepared: Prepared | None = None) -> Reading:
        """Find, outline and measure; raises NotApplicable as `reads` does. Prepares what was not prepared before."""
        ...
