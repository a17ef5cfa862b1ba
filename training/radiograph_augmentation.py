"""Augmentation of small radiographs, many at once: a batch of 28 x 28 pixels in the time that MONAI takes for one.

An experiment's [augmentation] is read as `training.transforms` reads it, and names mean the same. What an example is
changed by is drawn by the example's own generator, so that it does not depend on the batch that it is in. What moves
pixels is composed and read once; what changes values follows, in the table's order.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

Floats = NDArray[np.float32]
Pair = Sequence[float]

#: Knots of an elastic deformation to a side, with the border's.
_KNOTS = 5
#: Pixels to either side that a blur reaches.
_REACH = 2


class RadiographAugmentation:
    """An experiment's transforms; the same seed and number always give the same example."""

    def __init__(self, table: Mapping[str, Mapping[str, Any]], seed: int) -> None:
        unknown = sorted(set(table) - set(MOVING) - set(CHANGING))
        if unknown:
            known = ", ".join(sorted({*MOVING, *CHANGING}))
            raise ValueError(f"unknown transform {', '.join(unknown)}: [augmentation] of radiographs takes {known}")
        self._seed = seed
        self._table = {name: dict(arguments) for name, arguments in table.items()}

    def __call__(self, numbers: Sequence[int], images: Floats) -> Floats:
        """Images [n, row, column] of the examples `numbers`, changed; values 0..1 stay within."""
        generators = [np.random.default_rng((self._seed, number)) for number in numbers]
        pictures = torch.from_numpy(np.array(images, dtype=np.float32))[:, None]
        if any(name in MOVING for name in self._table):
            pictures = self._moved(pictures, generators)
        for name, arguments in self._table.items():
            if name in CHANGING:
                changed = _chosen(generators, float(arguments.get("prob", 1.0)))
                how = {key: value for key, value in arguments.items() if key != "prob"}
                where = np.flatnonzero(changed)
                if where.size:
                    some, asked = torch.from_numpy(where), [generators[int(n)] for n in where]
                    pictures[some] = CHANGING[name](pictures[some], asked, **how).clamp(0.0, 1.0)
        return np.asarray(pictures[:, 0].numpy(), dtype=np.float32)

    def _moved(self, pictures: Tensor, generators: Sequence[Generator]) -> Tensor:
        rows, columns = pictures.shape[-2:]
        grid = functional.affine_grid(_identity(len(pictures)), [len(pictures), 1, rows, columns], align_corners=False)
        for name, arguments in self._table.items():
            if name in MOVING:
                changed = _chosen(generators, float(arguments.get("prob", 1.0)))
                how = {key: value for key, value in arguments.items() if key != "prob"}
                for n in map(int, np.flatnonzero(changed)):
                    grid[n] = MOVING[name](grid[n], generators[n], **how)
        return functional.grid_sample(pictures, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _identity(n: int) -> Tensor:
    return torch.eye(2, 3).expand(n, 2, 3)


def _chosen(generators: Sequence[Generator], share: float) -> NDArray[np.bool_]:
    return np.array([rng.random() < share for rng in generators], dtype=bool)


def _affine(
    grid: Tensor,
    rng: Generator,
    rotate_range: Pair = (0.0,),
    shear_range: Pair = (0.0, 0.0),
    translate_range: Pair = (0.0, 0.0),
    scale_range: Pair = (0.0, 0.0),
) -> Tensor:
    """Places [row, column, (x, y)] of -1..1 turned (radians), sheared, scaled and shifted (pixels)."""
    angle = rng.uniform(-rotate_range[0], rotate_range[0])
    shear = [rng.uniform(-most, most) for most in shear_range]
    scale = [1.0 + rng.uniform(-most, most) for most in scale_range]
    side = grid.shape[0]
    shift = [2.0 / side * rng.uniform(-most, most) for most in translate_range]
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.array([[1.0, shear[0]], [shear[1], 1.0]]) @ np.diag(scale)
    return grid @ torch.from_numpy(matrix.T.astype(np.float32)) + torch.tensor(shift[::-1], dtype=torch.float32)


def _elastic(grid: Tensor, rng: Generator, magnitude: float = 1.0) -> Tensor:
    """Places moved by up to a few times `magnitude` pixels, smoothly."""
    side = grid.shape[0]
    knots = torch.from_numpy(rng.normal(0.0, 2.0 * magnitude / side, (1, 2, _KNOTS, _KNOTS)).astype(np.float32))
    smooth = functional.interpolate(knots, size=tuple(grid.shape[:2]), mode="bicubic", align_corners=True)
    return grid + smooth[0].permute(1, 2, 0)


def _flip(grid: Tensor, _rng: Generator, spatial_axis: int = 1) -> Tensor:
    """Places mirrored along rows (0) or columns (1)."""
    sign = torch.tensor([1.0, -1.0] if spatial_axis == 0 else [-1.0, 1.0])
    return grid * sign


def _per_picture(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None, None, None]


def _contrast(pictures: Tensor, generators: Sequence[Generator], gamma: Pair = (0.5, 2.0)) -> Tensor:
    """Values to the power of gamma, as often below 1 as above."""
    low, high = np.log(gamma[0]), np.log(gamma[1])
    return pictures.clamp(min=0.0) ** _per_picture([float(np.exp(rng.uniform(low, high))) for rng in generators])


def _scale(pictures: Tensor, generators: Sequence[Generator], factors: float = 0.1) -> Tensor:
    """Values about the picture's mean, further apart or nearer."""
    mean = pictures.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (pictures - mean) * _per_picture([1.0 + rng.uniform(-factors, factors) for rng in generators])


def _shift(pictures: Tensor, generators: Sequence[Generator], offsets: float = 0.1) -> Tensor:
    return pictures + _per_picture([rng.uniform(-offsets, offsets) for rng in generators])


def _blur(pictures: Tensor, generators: Sequence[Generator], sigma: Pair = (0.2, 0.8)) -> Tensor:
    return smoothed(pictures, _per_picture([rng.uniform(sigma[0], sigma[1]) for rng in generators]))


def _sharpen(pictures: Tensor, generators: Sequence[Generator], alpha: Pair = (0.3, 1.0)) -> Tensor:
    """What a blur takes off, added."""
    share = _per_picture([rng.uniform(alpha[0], alpha[1]) for rng in generators])
    return pictures + share * (pictures - smoothed(pictures, torch.ones_like(share)))


def smoothed(pictures: Tensor, sigma: Tensor) -> Tensor:
    """Pictures [n, 1, row, column] blurred, each by its own deviation [n, 1, 1, 1] in pixels."""
    steps = torch.arange(-_REACH, _REACH + 1, dtype=torch.float32)
    weights = torch.exp(-(steps**2) / (2 * sigma.reshape(-1, 1) ** 2))
    weights = weights / weights.sum(dim=1, keepdim=True)
    count = len(pictures)
    padded = functional.pad(pictures[:, 0][None], (_REACH,) * 4, mode="replicate")
    along = functional.conv2d(padded, weights[:, None, None, :], groups=count)
    return functional.conv2d(along, weights[:, None, :, None], groups=count)[0][:, None]


def _noise(pictures: Tensor, generators: Sequence[Generator], std: float = 0.03) -> Tensor:
    """Normal noise of up to this deviation."""
    shape = pictures.shape[1:]
    drawn = [rng.uniform(0.0, std) * rng.standard_normal(shape, dtype=np.float32) for rng in generators]
    return pictures + torch.from_numpy(np.stack(drawn).astype(np.float32))


def _dropout(
    pictures: Tensor, generators: Sequence[Generator], max_holes: int = 2, spatial_size: Sequence[int] = (3, 9)
) -> Tensor:
    """Rectangles with sides of so many pixels, filled with the picture's mean."""
    result = pictures.clone()
    side = pictures.shape[-1]
    for picture, rng in zip(result, generators, strict=True):
        for _ in range(int(rng.integers(1, max_holes + 1))):
            height, width = rng.integers(spatial_size[0], spatial_size[1] + 1, size=2)
            top, left = int(rng.integers(0, side - height + 1)), int(rng.integers(0, side - width + 1))
            picture[:, top : top + height, left : left + width] = picture.mean()
    return result


#: What moves pixels: places [row, column, 2], a generator and arguments, to other places.
MOVING: Mapping[str, Callable[..., Tensor]] = {"affine": _affine, "elastic_2d": _elastic, "flip": _flip}
#: What changes values of pictures [n, 1, row, column].
CHANGING: Mapping[str, Callable[..., Tensor]] = {
    "blur": _blur,
    "contrast": _contrast,
    "dropout": _dropout,
    "noise": _noise,
    "scale": _scale,
    "sharpen": _sharpen,
    "shift": _shift,
}
