"""The bones of a generated thorax."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.anatomy import CAGE, VERTEBRA_PITCH_MM, gutter, spine_y
from training.surfaces import Array, Tube, oval, profile, tube


@dataclass(frozen=True, kw_only=True)
class Skeleton:
    """Bones and cartilages that are tubes; spine, sternum and shoulder blades are functions of their own."""

    bones: tuple[Tube, ...]
    cartilages: tuple[Tube, ...]

    @classmethod
    def whole(cls) -> "Skeleton":
        """Ribs, clavicles, vertebral processes and shoulders."""
        bones, cartilages = ribs()
        return cls(
            bones=(*bones, *clavicles(), *vertebral_processes(), *shoulder_bones()), cartilages=tuple(cartilages)
        )


def ribs() -> tuple[list[Tube], list[Tube]]:
    """Twelve pairs of ribs, and the costal cartilages of the upper ten."""
    cage = profile(CAGE)
    bones: list[Tube] = []
    cartilages: list[Tube] = []
    for number in range(1, 13):
        top = 292.0 - VERTEBRA_PITCH_MM * (number - 0.6)
        drop = 22 + 9.5 * min(number, 6) - 1.5 * max(number - 8, 0)
        end = np.deg2rad(np.interp(number, (1, 2, 7, 10, 11, 12), (140, 146, 146, 128, 95, 65)))
        angles = np.linspace(np.deg2rad(27), end, 40)
        heights = top - drop * (1 - np.cos(angles)) / 2
        half_width, half_depth, centre = cage(heights).T
        thick = 3.6 if number > 1 else 4.2
        u, v = np.abs(np.sin(angles)) ** 0.8, np.sign(np.cos(angles)) * np.abs(np.cos(angles)) ** 0.8
        across, deep = (half_width + 5.5) * u, centre + (half_depth + 5.5) * v
        arc = np.c_[across, deep + gutter(across, deep), heights, np.full(40, thick)]
        back = float(spine_y(np.asarray(top)))
        head = [(17, back + 6, top + 3, 4.2), (36, back + 27, top + 3, 3.6)]
        for side in (-1, 1):
            mirror = np.array([side, 1, 1, 1])
            bones.append(tube(np.r_[head, arc] * mirror, flattening=0.62))
            cartilages.extend(tube(row * mirror, flattening=0.7) for row in cartilage_of(number, arc[-1]))
    return bones, cartilages


def clavicles() -> list[Tube]:
    """Both collar bones."""
    rows = np.array([(20, -52, 250, 7), (52, -50, 262, 5.5), (92, -34, 284, 5.5), (130, -10, 304, 6)])
    return [tube(rows * (side, 1, 1, 1)) for side in (-1, 1)]


def cartilage_of(number: int, tip: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """The cartilage from the tip of a rib to the sternum, or to the cartilage above it; none for the last two."""
    if number > 10:
        return []
    sternum_z = 244 - 19.0 * (number - 1) if number < 8 else 244 - 19.0 * 6.4
    sternum_y = sternum_front(np.asarray(sternum_z)) + 2
    middle = (tip[0] * 0.55 + 9, tip[1] * 0.35 + sternum_y * 0.65, min(tip[2], sternum_z) + 3, 4.6)
    return [np.array([tuple(tip), middle, (17, sternum_y, sternum_z, 4.2)])]


def sternum_front(z: NDArray[np.floating]) -> NDArray[np.floating]:
    """Depth of the middle of the sternum."""
    rows = profile(CAGE)(np.clip(z, 100, 252))
    return np.asarray(rows[..., 2] - rows[..., 1] - 7)


def vertebral_processes() -> list[Tube]:
    """Pedicles, laminae, transverse and spinous processes of each vertebra."""
    tubes = []
    for level in range(-1, 14):
        z = 292.0 - VERTEBRA_PITCH_MM * level
        y = float(spine_y(np.asarray(z)))
        for side in (-1, 1):
            tubes.append(tube([(side * 11, y + 8, z + 4, 4), (side * 12.5, y + 24, z, 4), (0, y + 38, z - 5, 3.6)]))
            tubes.append(tube([(side * 13, y + 24, z, 4.4), (side * 36, y + 34, z + 3, 4)]))
        tubes.append(tube([(0, y + 37, z - 5, 4), (0, y + 48, z - 16, 3.2), (0, y + 51, z - 20, 3.6)], flattening=0.8))
    return tubes


def shoulder_bones() -> list[Tube]:
    """Scapular spines and humeral heads of raised arms."""
    tubes = []
    for side in (-1, 1):
        mirror = np.array([side, 1, 1, 1])
        tubes.append(
            tube(np.array([(70, 92, 236, 4), (106, 88, 256, 5), (140, 62, 288, 6), (152, 34, 304, 7)]) * mirror)
        )
        tubes.append(tube(np.array([(136, 30, 288, 19), (146, 20, 308, 21), (154, 10, 340, 14)]) * mirror))
    return tubes


def spine(x: Array, y: Array, z: Array) -> tuple[Array, Array, Array]:
    """Distances to the discs, to the vertebral bodies and to the spinal canal."""
    back = spine_y(z).astype(np.float32)
    phase = np.abs(np.mod(z - 292.0, VERTEBRA_PITCH_MM) - VERTEBRA_PITCH_MM / 2)
    edge = np.float32(VERTEBRA_PITCH_MM / 2 - 2.3)
    waist = 1.6 * np.cos(np.pi * np.clip(phase / edge, 0, 1) / 2).astype(np.float32)
    column = oval(x, y - back, 17 - waist, 13.5 - waist)
    bodies = np.maximum(column, (phase - edge).astype(np.float32))
    canal = oval(x, y - back - 21.5, 9.5, 8.0)
    return column + 0.5, np.maximum(bodies, -canal), canal


def sternum(x: Array, y: Array, z: Array) -> Array:
    """Distance to manubrium and body of the sternum."""
    front = sternum_front(z).astype(np.float32)
    width = np.interp(z, (105, 130, 205, 215, 245, 256), (7, 17, 12, 20, 30, 22)).astype(np.float32)
    return np.maximum(oval(x, y - front, width, 6.0), np.maximum(105 - z, z - 256).astype(np.float32))


def scapulae(x: Array, y: Array, z: Array) -> Array:
    """Distance to the blades of both shoulders."""
    reach = np.interp(z, (138, 160, 235, 262), (2, 22, 36, 30)).astype(np.float32)
    middle_x = np.interp(z, (138, 262), (104, 98)).astype(np.float32)
    middle_y = np.interp(z, (138, 180, 262), (84, 78, 74)).astype(np.float32)
    u, v = np.abs(x) - middle_x, y - middle_y
    along, across = 0.74 * u - 0.67 * v, 0.67 * u + 0.74 * v
    bent = across + along * along / 130 - 4
    thick = 2.4 + 2.2 * np.clip(along / reach, 0, 1) ** 4
    plate = np.maximum(np.abs(bent) - thick, np.abs(along) - reach)
    return np.maximum(plate, np.maximum(138 - z, z - 262).astype(np.float32))
