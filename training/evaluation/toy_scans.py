"""Toy volumes with balls in them, for a run of seconds without outside data: they show that the way runs, no more."""

import numpy as np
from scipy import ndimage

from training.augmentation import Slices
from training.evaluation.drawn_scans import Case, DrawnNodule, DrawnScan
from workers.preprocessing import GRID_MM
from workers.volume import Region

#: Voxels of a body that is large enough to be read.
_SHAPE = (60, 170, 230)
_RADIUS_MM = 6.0
_MIDDLES = ((30, 85, 62), (26, 80, 168))


def toy_scan(case: Case) -> DrawnScan:
    """Two lungs in a body, with a ball in each where the case has nodules."""
    rng = case.generator(0)
    k, j, i = (axis * mm for axis, mm in zip(np.indices(_SHAPE, dtype=np.float32), GRID_MM, strict=True))
    hu = np.where(((j - 85) / 80) ** 2 + ((i - 115) / 108) ** 2 < 1, 40.0, -1000.0).astype(np.float32)
    lungs = np.zeros(_SHAPE, dtype=bool)
    for middle in (62.0, 168.0):
        lungs |= ((k - 45) / 44) ** 2 + ((j - 85) / 62) ** 2 + ((i - middle) / 44) ** 2 < 1
    hu[lungs] = -860.0
    nodules = []
    for place in _MIDDLES if case.with_nodules else ():
        at = np.array(place) * GRID_MM + rng.uniform(-4.0, 4.0, 3)
        ball = (k - at[0]) ** 2 + (j - at[1]) ** 2 + (i - at[2]) ** 2 < _RADIUS_MM**2
        hu[ball] = 30.0
        (box,) = ndimage.find_objects(ball.astype(np.int8))
        region = Region(box=box, mask=ball[box])
        nodules.append(DrawnNodule(region=region, kind="solid", diameter_mm=2 * _RADIUS_MM))
    hu += rng.normal(0.0, 15.0, _SHAPE).astype(np.float32)
    return DrawnScan(
        name=case.name,
        background="toy",
        slice_thickness_mm=GRID_MM[0],
        hu=hu,
        slices=Slices(hu=hu, first=0.0, step=1.0),
        judged=np.ones(_SHAPE, dtype=bool),
        nodules=tuple(nodules),
    )
