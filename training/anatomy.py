"""The organs of a generated thorax, with the midline at x = 0 and the lowest slice near z = 0; bones are elsewhere."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.hila import Hila
from training.surfaces import (
    Array,
    Ellipsoid,
    Grid,
    Tube,
    Wobble,
    box_of,
    cut,
    ellipsoid,
    oval,
    profile,
    section,
    smooth_max,
    tube,
)

#: z, half width, half depth and centre y of the inner wall of the rib cage.
CAGE = (
    (-30, 128, 84, 0), (0, 132, 86, 0), (60, 134, 87, 0), (120, 131, 83, 1), (180, 121, 74, 4),
    (230, 104, 64, 10), (255, 90, 54, 14), (280, 68, 42, 19), (300, 52, 34, 22), (340, 48, 32, 22),
)  # fmt: skip
#: The same of the outer face of the muscles.
MUSCLE = (
    (-30, 146, 104, 0), (0, 149, 106, 0), (60, 151, 107, 0), (120, 150, 104, 1), (180, 145, 97, 5),
    (230, 142, 86, 15), (262, 140, 76, 24), (300, 136, 70, 29), (340, 132, 68, 29),
)  # fmt: skip
#: The same of the skin.
SKIN = (
    (-30, 160, 121, -4), (0, 162, 122, -4), (60, 163, 122, -4), (120, 164, 119, -3), (180, 167, 113, 2),
    (230, 176, 101, 13), (262, 186, 90, 22), (300, 192, 82, 28), (340, 192, 80, 28),
)  # fmt: skip
#: z, centre x, centre y, half width and half depth of the middle of the mediastinum.
MEDIASTINUM = (
    (-30, 5, 20, 30, 40), (60, 6, 18, 28, 40), (140, 4, 10, 33, 40), (185, 2, 6, 36, 40), (215, 0, 4, 35, 36),
    (245, 0, 8, 33, 34), (275, 0, 12, 30, 32), (300, 0, 14, 26, 30), (340, 0, 14, 26, 30),
)  # fmt: skip
#: Height of the highest point of the lungs.
APEX_Z = 293.0
VERTEBRA_PITCH_MM = 24.0


HEART = (
    Ellipsoid(name="left ventricle", centre=(34, -26, 98), radii=(54, 38, 42), hu=44, turn_degrees=-32),
    Ellipsoid(name="right ventricle", centre=(2, -44, 104), radii=(46, 29, 42), hu=42, turn_degrees=-12),
    Ellipsoid(name="right atrium", centre=(-30, -16, 116), radii=(27, 31, 36), hu=42),
    Ellipsoid(name="left atrium", centre=(2, 11, 145), radii=(37, 22, 28), hu=42),
)
DOMES = (
    Ellipsoid(name="right dome", centre=(-60, -3, 22), radii=(92, 95, 80), hu=50),
    Ellipsoid(name="left dome", centre=(66, 1, 14), radii=(85, 93, 76), hu=50),
)
ABDOMEN = (
    Ellipsoid(name="liver", centre=(-60, -3, 20), radii=(87, 89, 77), hu=57),
    Ellipsoid(name="left lobe of the liver", centre=(14, -42, 42), radii=(66, 38, 34), hu=57),
    Ellipsoid(name="spleen", centre=(96, 38, 36), radii=(30, 44, 44), hu=50, turn_degrees=25),
    Ellipsoid(name="stomach wall", centre=(64, -22, 36), radii=(42, 38, 40), hu=42),
    Ellipsoid(name="stomach content", centre=(64, -22, 36), radii=(38, 34, 36), hu=18),
)
MUSCLES = (
    ((62, -84, 196), (52, 15, 48)), ((130, 44, 140), (22, 44, 110)), ((28, 97, 150), (25, 14, 400)),
    ((90, 74, 215), (54, 26, 66)), ((146, 22, 300), (44, 50, 66)), ((70, 60, 292), (74, 36, 44)),
    ((118, -20, 266), (46, 34, 44)),
)  # fmt: skip
#: x, y, z and radius along the great vessels.
GREAT_VESSELS = (
    # aorta
    ((6, -20, 146, 15), (-13, -29, 172, 16), (-15, -29, 198, 16), (-6, -18, 221, 15), (10, 6, 230, 14),
     (22, 27, 221, 13), (26, 38, 198, 12.5), (25, 43, 150, 12), (20, 44, 80, 11.5), (12, 36, -20, 11)),
    # superior caval vein
    ((-28, -18, 140, 10), (-28, -20, 190, 9), (-24, -22, 228, 8.5), (-24, -18, 262, 7), (-27, -6, 300, 6)),
    # left brachiocephalic vein
    ((-23, -22, 226, 7), (0, -32, 234, 6.5), (18, -22, 252, 6.5), (25, -6, 300, 6)),
    # inferior caval vein
    ((-22, -4, 118, 12), (-24, 2, 60, 12), (-24, 14, -20, 11)),
    # pulmonary trunk and left artery
    ((12, -40, 148, 14), (16, -34, 170, 14.5), (22, -18, 188, 13), (34, 2, 196, 10.5), (47, 15, 191, 8.5)),
    # right pulmonary artery
    ((18, -26, 182, 12.5), (2, -12, 181, 12), (-22, -2, 179, 11), (-42, 4, 174, 9)),
    # brachiocephalic trunk
    ((-2, -14, 226, 6.5), (-12, -6, 256, 6), (-22, 0, 300, 5)),
    # left carotid artery
    ((9, 2, 230, 4.5), (14, 4, 262, 4), (18, 4, 300, 3.5)),
    # left subclavian artery
    ((18, 18, 228, 5), (22, 22, 268, 5), (34, 8, 298, 4.5), (60, -4, 308, 4)),
    # azygos vein
    ((-14, 38, -20, 3.5), (-9, 40, 120, 4), (-9, 36, 186, 4.5), (-20, 20, 196, 4), (-28, -8, 192, 4.5)),
)  # fmt: skip
#: Fat around the great vessels.
CUFF_MM = 3.0
LYMPH_NODES = ((-16, -4, 205), (14, 2, 196), (-4, 26, 178), (8, -14, 214), (-20, 22, 188))


def spine_y(z: NDArray[np.floating]) -> NDArray[np.floating]:
    """Depth of the centre of the vertebral bodies: a gentle kyphosis."""
    return np.asarray(49.0 + 11.0 * np.exp(-(((z - 150.0) / 115.0) ** 2)))


def gutter(x: NDArray[np.floating], y: NDArray[np.floating]) -> NDArray[np.floating]:
    """How much deeper than an oval the rib cage reaches to both sides of the spine, mm."""
    return np.asarray(10.0 * np.exp(-(((np.abs(x) - 60.0) / 36.0) ** 2)) * np.clip(y / 60.0, 0, 1))


def great_vessels() -> list[Tube]:
    """Aorta with its branches, caval veins and the trunk of the pulmonary artery, without contrast."""
    return [tube(course) for course in GREAT_VESSELS]


def central_airways() -> list[Tube]:
    """Trachea and main bronchi down to where the lobes begin; radii are of the lumen."""
    return [
        tube([(0, 4, 330, 8), (0, 9, 270, 8.2), (-1, 15, 225, 8.2), (-1, 19, 200, 8.8)]),
        tube([(-2, 19, 202, 8), (-16, 18, 190, 7.4), (-32, 15, 180, 6.8), (-42, 14, 172, 6)]),
        tube([(0, 19, 202, 7.6), (16, 20, 188, 6.6), (34, 19, 177, 6), (44, 17, 170, 5.4)]),
    ]


def oesophagus() -> list[Tube]:
    """The oesophagus, collapsed."""
    return [
        tube([(2, 26, 330, 6), (4, 30, 250, 7), (4, 32, 200, 7.5), (4, 30, 150, 7), (8, 24, 90, 8), (24, 10, 60, 9)])
    ]


@dataclass(frozen=True, kw_only=True)
class Thorax:
    """The organs of one generated person; bones are in `training.skeleton`."""

    wobble: Wobble
    fine_wobble: Wobble
    vessels: tuple[Tube, ...]
    hila: Hila
    airways: tuple[Tube, ...]
    oesophagus: tuple[Tube, ...]

    @classmethod
    def random(cls, rng: np.random.Generator) -> "Thorax":
        """A thorax with its own irregularities."""
        return cls(
            wobble=Wobble.random(rng, 26.0),
            fine_wobble=Wobble.random(rng, 7.0),
            vessels=tuple(great_vessels()),
            # Drawn apart: whatever else is random of a seed stays as it is.
            hila=Hila.random(rng.spawn(1)[0]),
            airways=tuple(central_airways()),
            oesophagus=tuple(oesophagus()),
        )


def cage_distance(x: Array, y: Array, z: Array) -> Array:
    """Distance to the inner wall of the rib cage."""
    return section(CAGE, x, (y - gutter(x, y)).astype(np.float32), z)


def lung_distance(grid: Grid, cage: Array, great_vessels: Array) -> Array:
    """Distance to the pleura of both lungs, given those to the cage and to the great vessels."""
    x, y, z = grid
    inside = smooth_max(cage, apex(x, y, z), 8.0)
    for dome in DOMES:
        carve(inside, grid, dome, grown=0.0, blend_mm=3.0)
    for chamber in HEART:
        carve(inside, grid, chamber, grown=5.0, blend_mm=9.0)
    core = box_of(grid, np.array([-75.0, -1e3, -1e3]), np.array([75.0, 1e3, 1e3]))
    if core is not None:
        inside[core] = smooth_max(inside[core], -midline(*cut(grid, core)), 7.0)
    return smooth_max(inside, CUFF_MM - great_vessels, 7.0)


def carve(inside: Array, grid: Grid, organ: Ellipsoid, *, grown: float, blend_mm: float) -> None:
    """Take an organ out of the lungs, with a rounded brink."""
    reach = np.array([max(organ.radii[:2]), max(organ.radii[:2]), organ.radii[2]]) + grown + 2 * blend_mm
    box = box_of(grid, np.array(organ.centre) - reach, np.array(organ.centre) + reach)
    if box is not None:
        inside[box] = smooth_max(inside[box], -ellipsoid(organ, *cut(grid, box), grown=grown), blend_mm)


def midline(x: Array, y: Array, z: Array) -> Array:
    """Distance to what parts the lungs: mediastinum, spine, and the fat behind the sternum."""
    middle = profile(MEDIASTINUM)(z.ravel()).astype(np.float32)[:, :, None, None]
    core = oval(x - middle[:, 0], y - middle[:, 1], middle[:, 2], middle[:, 3])
    back = spine_y(z).astype(np.float32)
    column = oval(x, y - back - 14, 23.0, 36.0)
    width = 3.0 + np.clip((140 - z) / 5, 0, 16)
    septum = np.maximum(np.abs(x - 2 - 0.06 * (200 - z)) - width, y - 5).astype(np.float32)
    beside = smooth_max(smooth_max(-core, -column, 6.0), -septum, 10.0)
    return np.negative(beside, out=beside)


def apex(x: Array, y: Array, z: Array) -> Array:
    """Distance to the dome over each lung's top; far inside below it."""
    cap = Ellipsoid(name="apex", centre=(43, 20, 232), radii=(53, 64, APEX_Z - 232), hu=0)
    below = np.maximum(232 - z, 0).astype(np.float32) * np.float32(0.9)
    return ellipsoid(cap, np.abs(x), y, np.maximum(z, 232).astype(np.float32)) - below


def fissures(x: Array, y: Array, z: Array) -> tuple[Array, Array]:
    """Distances to the oblique fissure (above 0: lower lobe) and to the right horizontal one (above 0: upper lobe)."""
    bend = 5 * np.sin(x / 27) + 4 * np.sin(z / 31)
    oblique = (y + bend - (12 + (z - 150) * 0.78)) * np.float32(0.79)
    horizontal = z - (163 + 5 * np.sin(x / 33) - 0.10 * (y + 60))
    return oblique.astype(np.float32), horizontal.astype(np.float32)


LOBES = ("right upper lobe", "right middle lobe", "right lower lobe", "left upper lobe", "left lower lobe")


def lobe_index(x: Array, y: Array, z: Array) -> NDArray[np.int8]:
    """The index into LOBES of a place within the lungs."""
    oblique, horizontal = fissures(x, y, z)
    right = np.where(oblique > 0, 2, np.where(horizontal > 0, 0, 1))
    return np.where(x < 0, right, np.where(oblique > 0, 4, 3)).astype(np.int8)
