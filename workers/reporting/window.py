"""Windows: which HU are black and which are white, in every picture of ours."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Window:
    """A window by centre and width in HU, linear (PS3.3 Section C.11.2.1.2.1)."""

    name: str
    centre: float
    width: float

    def grey(self, hu: NDArray[np.float32]) -> NDArray[np.uint8]:
        """HU as 0, black, to 255, white."""
        share = (hu - np.float32(self.centre - 0.5)) / np.float32(self.width - 1) + np.float32(0.5)
        return np.asarray(np.clip(share * np.float32(255), 0, 255).round(), dtype=np.uint8)


LUNG = Window(name="LUNG", centre=-600.0, width=1500.0)
