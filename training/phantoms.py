"""A generated chest CT with lung nodules of known place and size: semi-synthetic data, from no patient.

`python -m training.phantoms OUTDIR` writes the series into OUTDIR/series and what is true of it into OUTDIR/truth.json.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, map_coordinates

from training.anatomy import LOBES, Thorax, lobe_index
from training.ct_physics import as_scanned
from training.ct_series import Scan, write_ct_series
from training.hila import Hila
from training.lung_trees import Segments, Tree, accompanying_airways, grow, joined, pruned, relaxed, tubes_of
from training.phantom_drawing import Drawing, pleura_distance
from training.phantom_nodules import KINDS, NoduleKind, PhantomNodule, random_nodule, random_shape
from training.skeleton import Skeleton
from training.surfaces import Points, axes_of

Vector = tuple[float, float, float]

#: Where the thorax's own origin lies in patient coordinates: off the isocentre, as tables are.
THORAX_LPS_MM = np.array([3.5, -168.0, -412.0])
FIELD_OF_VIEW_MM = 400.0
#: Lowest and highest plane of the scan in the thorax's own z.
SCAN_Z = (2.0, 302.0)
SHAPE = (150, 512, 512)
#: A coarse phantom for quick tests.
SMALL_SHAPE = (60, 128, 128)
#: Where the airways end in the right (0) and the left (1) hilum.
AIRWAY_STEMS: tuple[Vector, Vector] = ((-42, 14, 172), (44, 17, 170))
#: Nodules lie farther from the midline than this, clear of the hila.
HILUM_X = 72.0
#: Vessels end so far below the pleura.
LEAST_TIP_DISTANCE_MM = 5.0
#: Distance between the ends of vessels on a fine grid, and the radius there.
TIP_SPREAD_MM, TIP_RADIUS_MM = 7.8, 0.5
#: How many places of a lobe are tried as ends of its vessels.
PLACES_TRIED = 7000


@dataclass(frozen=True, kw_only=True)
class Phantom:
    """A finished volume [k, j, i] in HU with its geometry and its truth."""

    hu: NDArray[np.int16]
    #: (dz, dy, dx).
    spacing_mm: Vector
    #: LPS of the centre of voxel (0, 0, 0).
    origin_mm: Vector
    nodules: tuple[PhantomNodule, ...]
    seed: int


@dataclass(frozen=True, kw_only=True)
class LungMap:
    """How deep below the pleura each place of the lungs lies, on a coarse grid."""

    depth_mm: NDArray[np.float32]
    corner: Points
    step_mm: float

    @classmethod
    def of(cls, thorax: Thorax, step_mm: float = 3.0) -> "LungMap":
        """Measured from the organs' own surfaces."""
        corner = np.array([-144.0, -108.0, -10.0])
        inside = pleura_distance(thorax, axes_of(corner, (step_mm,) * 3, (104, 74, 98))) < 0
        depth = distance_transform_edt(inside, sampling=step_mm).astype(np.float32)
        return cls(depth_mm=depth, corner=corner, step_mm=step_mm)

    def depth(self, points: Points) -> NDArray[np.float64]:
        """Depth in mm at points [n, 3]; 0 outside the lungs."""
        index = ((points - self.corner) / self.step_mm)[:, ::-1].T
        return np.asarray(map_coordinates(self.depth_mm, index, order=1, mode="nearest"))

    def places(self, least_depth_mm: float) -> Points:
        """Grid points at least so deep, [n, 3]."""
        return np.argwhere(self.depth_mm >= least_depth_mm)[:, ::-1] * self.step_mm + self.corner


def make_phantom(
    seed: int,
    *,
    shape: tuple[int, int, int] = SHAPE,
    nodules: int = 3,
    small: bool = False,
    kinds: Sequence[NoduleKind] = KINDS,
) -> Phantom:
    """A chest drawn and scanned; the same seed and options give the same voxels.

    `shape` is (slices, rows, columns) over a fixed field of view; `nodules` takes the first so many of `kinds`,
    beginning again after the last; `small` is a coarse grid for quick tests.
    """
    rng = np.random.default_rng(seed)
    slices, rows, columns = SMALL_SHAPE if small else shape
    spacing = ((SCAN_Z[1] - SCAN_Z[0]) / slices, FIELD_OF_VIEW_MM / rows, FIELD_OF_VIEW_MM / columns)
    corner = np.array([-FIELD_OF_VIEW_MM / 2 + spacing[2] / 2, -FIELD_OF_VIEW_MM / 2 + spacing[1] / 2, SCAN_Z[0]])
    thorax = Thorax.random(rng)
    lungs = LungMap.of(thorax)
    placed = placed_nodules([kinds[n % len(kinds)] for n in range(nodules)], lungs, rng)
    vessels, airways = lung_tubes(thorax.hila, lungs, placed, rng, spacing[2])
    drawing = Drawing(
        thorax=thorax, skeleton=Skeleton.whole(), vessels=vessels, airways=airways, nodules=placed,
        offset_mm=THORAX_LPS_MM,
    )  # fmt: skip
    ideal, lung_share = drawing.slices(corner, spacing, (slices, rows, columns))
    hu = as_scanned(ideal, lung_share, spacing, rng)
    x, y, z = (float(value) for value in corner + THORAX_LPS_MM)
    return Phantom(hu=hu, spacing_mm=spacing, origin_mm=(x, y, z), nodules=placed, seed=seed)


def placed_nodules(kinds: Sequence[NoduleKind], lungs: LungMap, rng: np.random.Generator) -> tuple[PhantomNodule, ...]:
    """Nodules of the kinds at places within the parenchyma, one a lobe as far as lobes last."""
    lobes = rng.permutation(len(LOBES))
    placed: list[PhantomNodule] = []
    for number, kind in enumerate(kinds):
        diameter = float(rng.uniform(kind.least_diameter_mm, kind.largest_diameter_mm))
        shape = random_shape(kind.margin, diameter, rng)
        places = lungs.places(shape.reach_mm + 4.0)
        places = places[np.abs(places[:, 0]) > HILUM_X]
        own = places[lobes_of(places) == lobes[number % len(LOBES)]]
        candidates = own if len(own) else places
        centre = candidates[rng.integers(len(candidates))] + rng.uniform(-1.4, 1.4, size=3)
        x, y, z = (float(value) for value in centre + THORAX_LPS_MM)
        lobe = LOBES[int(lobes_of(centre[None])[0])]
        placed.append(random_nodule(kind, shape, (x, y, z), lobe, rng))
    return tuple(placed)


def lobes_of(places: Points) -> NDArray[np.int8]:
    """The index into LOBES of each place [n, 3]."""
    x, y, z = places.T.astype(np.float32)
    return lobe_index(x, y, z)


def lung_tubes(
    hila: Hila, lungs: LungMap, nodules: Sequence[PhantomNodule], rng: np.random.Generator, voxel_mm: float
) -> tuple[Segments, Segments]:
    """Vessels and airways of all lobes, kept clear of the nodules."""
    vessels, airways = [], []
    spread = TIP_SPREAD_MM * max(1.0, voxel_mm / 0.8) ** 0.6
    for lobe in range(len(LOBES)):
        artery = lobar_tree(lobe, hila.artery_roots[lobe], spread, lungs, nodules, rng)
        vein = lobar_tree(lobe, hila.vein_roots[lobe], spread * 1.08, lungs, nodules, rng)
        tip = TIP_RADIUS_MM * spread / TIP_SPREAD_MM
        supply, drain, air = tubes_of(artery, tip), tubes_of(vein, tip), accompanying_airways(artery, tip, 1.0)
        left = hila.artery_roots[lobe][0] > 0
        vessels += [supply, drain]
        airways += [air, stem(AIRWAY_STEMS[left], air, 5.2)]
    return joined(vessels), joined(airways)


def stem(start: Vector, tree: Segments, radius: float) -> Segments:
    """The piece that joins a tree to its trunk in the mediastinum, narrowing to the tree's own width."""
    return Segments(
        starts=np.array([start]), ends=tree.starts[:1], start_radii=np.array([radius]), end_radii=tree.start_radii[:1]
    )


def lobar_tree(
    lobe: int, root: Sequence[float], spread_mm: float, lungs: LungMap, nodules: Sequence[PhantomNodule],
    rng: np.random.Generator,
) -> Tree:  # fmt: skip
    """One vessel tree that fills a lobe to within a few millimetres of the pleura."""
    places = lungs.places(LEAST_TIP_DISTANCE_MM)
    places = places[lobes_of(places) == lobe]
    targets = apart(places + rng.uniform(-1.4, 1.4, size=places.shape), spread_mm, rng)
    centres = np.array([nodule.centre_lps_mm for nodule in nodules]).reshape(-1, 3) - THORAX_LPS_MM
    reaches = np.array([nodule.shape.reach_mm + 2.5 for nodule in nodules])

    def near_nodule(points: Points) -> NDArray[np.bool_]:
        away = np.linalg.norm(points[:, None] - centres[None], axis=2)
        return np.asarray((away < reaches).any(axis=1))

    def toll(start: Points, ends: Points) -> Points:
        steps = np.concatenate([start + (ends - start) * share for share in (0.3, 0.5, 0.7)])
        bad = (lungs.depth(steps) < 2.0) * 25.0 + near_nodule(steps) * 60.0
        return np.asarray(bad.reshape(3, -1).sum(axis=0))

    tree = grow(np.array([root], dtype=float), targets[~near_nodule(targets)], toll)
    return pruned(relaxed(tree), near_nodule)


def apart(places: Points, least_mm: float, rng: np.random.Generator) -> Points:
    """A random choice of the places, no two nearer to each other than a distance."""
    shuffled = places[rng.permutation(len(places))[:PLACES_TRIED]]
    free = np.ones(len(shuffled), dtype=bool)
    chosen = []
    for index in range(len(shuffled)):
        if free[index]:
            chosen.append(index)
            free &= ((shuffled - shuffled[index]) ** 2).sum(axis=1) >= least_mm**2
    return shuffled[chosen]


def write_phantom(phantom: Phantom, folder: Path, *, uid_seed: str | None = None) -> list[Path]:
    """Write the series into folder/series and the truth into folder/truth.json."""
    scan = Scan(study_description="CT CHEST PHANTOM", slice_thickness_mm=phantom.spacing_mm[0])
    paths = write_ct_series(
        phantom.hu, spacing_mm=phantom.spacing_mm, origin_mm=phantom.origin_mm, folder=folder / "series", scan=scan,
        uid_seed=uid_seed,
    )  # fmt: skip
    truth = {
        "seed": phantom.seed,
        "spacing_mm": list(phantom.spacing_mm),
        "origin_lps_mm": list(phantom.origin_mm),
        "nodules": [nodule.facts() for nodule in phantom.nodules],
    }
    (folder / "truth.json").write_text(json.dumps(truth, indent=2) + "\n", encoding="utf-8")
    return paths


def main(arguments: Sequence[str] | None = None) -> None:
    """Generate a chest CT with nodules and write it as DICOM."""
    parser = argparse.ArgumentParser(prog="python -m training.phantoms", description=main.__doc__)
    parser.add_argument("folder", type=Path, help="where series/ and truth.json go")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--slices", type=int, default=SHAPE[0])
    parser.add_argument("--matrix", type=int, default=SHAPE[1], help="rows and columns")
    parser.add_argument("--nodules", type=int, default=3)
    parser.add_argument("--uid-seed", default=None, help="the same seed gives the same UIDs (default: fresh UIDs)")
    chosen = parser.parse_args(arguments)
    shape = (chosen.slices, chosen.matrix, chosen.matrix)
    phantom = make_phantom(chosen.seed, shape=shape, nodules=chosen.nodules)
    paths = write_phantom(phantom, chosen.folder, uid_seed=chosen.uid_seed)
    print(f"{len(paths)} CT instances with {len(phantom.nodules)} nodules in {chosen.folder}")


if __name__ == "__main__":
    main()
