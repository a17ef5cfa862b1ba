"""Algorithms for worker processes under test: what one does at its next reading, a file says."""

import os
import time
from pathlib import Path

import numpy as np

from workers.algorithms import Prepared, Reading
from workers.bundles import Bundle
from workers.inference import Inference
from workers.volume import Volume

#: Names the environment variable that names the file.
TOLD_BY = "TOLD_BY"


class Told:
    """Reads nothing; hangs, or runs its network for ever, where it is told so."""

    name = "told"

    def __init__(self, bundle: Bundle, inference: Inference) -> None:
        self._inference = inference

    def reads(self, volume: Volume) -> None:
        """Reads everything."""

    def prepare(self, volume: Volume) -> Prepared:
        return Prepared(voxels=volume.voxels, where=volume.voxels > -2000)

    def read(self, volume: Volume, prepared: Prepared | None = None) -> Reading:
        given = prepared or self.prepare(volume)
        told = Path(os.environ[TOLD_BY])
        while told.read_text() == "never end":
            self._inference.probability(given.voxels, given.where)
        while told.read_text() == "hang":
            time.sleep(0.05)
        self._inference.probability(given.voxels, given.where)
        return Reading(findings=(), labels=np.zeros(volume.voxels.shape, dtype=np.uint8), parameters=())


ALGORITHMS = {Told.name: Told}
