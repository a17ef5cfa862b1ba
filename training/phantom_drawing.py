"""The organs of a generated thorax drawn as HU, a few planes at a time, with partial volume."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from training.anatomy import (
    ABDOMEN,
    CUFF_MM,
    HEART,
    LYMPH_NODES,
    MUSCLE,
    MUSCLES,
    SKIN,
    Thorax,
    cage_distance,
    fissures,
    lung_distance,
)
from training.lung_trees import Segments, chained
from training.phantom_nodules import PhantomNodule
from training.skeleton import Skeleton, scapulae, spine, sternum
from training.surfaces import Array, Box, Ellipsoid, Grid, Points, Tube, axes_of, box_of, cut, ellipsoid, section

#: Output slices that are drawn at a time; bounds the memory.
SLAB_SLICES = 6
#: Planes across one slice, whose mean is the slice profile, lie about so far apart.
PLANE_MM = 1.0
#: Farther than any surface that matters: a distance field where nothing is drawn.
FAR_MM = 25.0
#: Nothing but air and the table lies outside these x and y.
BODY_LOW, BODY_HIGH = np.array([-197.0, -132.0, -1e3]), np.array([197.0, 124.0, 1e3])
#: Neither lungs nor what is between them reach beyond these.
CHEST_LOW, CHEST_HIGH = np.array([-142.0, -104.0, -1e3]), np.array([142.0, 112.0, 1e3])
#: The back of the body lies flat on the table.
TABLE_Y = 115.0
AIR_HU, FAT_HU, MUSCLE_HU, SKIN_HU, BLOOD_HU, SOFT_HU = -1000.0, -104.0, 55.0, 25.0, 42.0, 36.0
CORTEX_HU, MARROW_HU, CARTILAGE_HU, DISC_HU = 760.0, 190.0, 105.0, 85.0
TABLE_HU, FOAM_HU = -180.0, -950.0
#: Parenchyma at the midline, and how much denser it grows a mm to the back.
PARENCHYMA_HU, GRAVITY_HU_PER_MM = -872.0, 0.32
FISSURE_HU, FISSURE_MM = 110.0, 0.9
VESSEL_HU, AIRWAY_WALL_HU, LUMEN_HU = 42.0, 0.0, -985.0
CORTEX_MM = 1.4


def lay(hu: Array, distance: Array, value: float | Array, edge_mm: float) -> None:
    """Fill the inside of a surface, with a soft edge for the voxels that it cuts."""
    share = np.clip(0.5 - distance * np.float32(1 / edge_mm), 0, 1)
    hu += share * (value - hu)


def cones(
    grid: Grid, segments: Segments, margin_mm: float, flattening: float = 1.0
) -> Iterator[tuple[Box, Array, Array]]:
    """For each piece of tube that meets the grid: its part of the grid, and there its radius and distance."""
    widest = np.maximum(segments.start_radii, segments.end_radii)[:, None] + margin_mm
    reach = widest * np.array([1.0, 1.0, 1 / flattening])
    low = np.minimum(segments.starts, segments.ends) - reach
    high = np.maximum(segments.starts, segments.ends) + reach
    z = grid[2].ravel()
    squash = np.float32(flattening)
    for n in np.flatnonzero((high[:, 2] >= z[0]) & (low[:, 2] <= z[-1])):
        box = box_of(grid, low[n], high[n])
        if box is None:
            continue
        x, y, height = cut(grid, box)
        start, step = segments.starts[n].astype(np.float32), (segments.ends[n] - segments.starts[n]).astype(np.float32)
        px, py, pz = x - start[0], y - start[1], (height - start[2]) * squash
        step[2] *= squash
        along = np.clip((px * step[0] + py * step[1] + pz * step[2]) / np.float32(max(step @ step, 1e-9)), 0, 1)
        away = np.sqrt((px - along * step[0]) ** 2 + (py - along * step[1]) ** 2 + (pz - along * step[2]) ** 2)
        radius = np.float32(segments.start_radii[n]) + along * np.float32(
            segments.end_radii[n] - segments.start_radii[n]
        )
        yield box, radius, away - radius


def far(grid: Grid) -> Array:
    """A distance field in which nothing is drawn yet."""
    return np.full((grid[2].size, grid[1].size, grid[0].size), np.float32(FAR_MM))


def tube_distance(grid: Grid, tubes: Iterable[Tube], margin_mm: float) -> Array:
    """Distance to the surface of all the tubes, true within the margin."""
    field = far(grid)
    for tube in tubes:
        for box, _, distance in cones(grid, chained(tube.points, tube.radii), margin_mm, tube.flattening):
            np.minimum(field[box], distance, out=field[box])
    return field


def pleura_distance(thorax: Thorax, grid: Grid) -> Array:
    """Distance to the pleura of both lungs."""
    great = tube_distance(grid, (*thorax.vessels, *thorax.airways, *thorax.oesophagus), 11.0)
    hilar = tube_distance(grid, thorax.hila.vessels, 9.0) + np.float32(CUFF_MM - thorax.hila.cuff_mm)
    np.minimum(great, hilar, out=great)
    return lung_distance(grid, cage_distance(*grid), great)


@dataclass(frozen=True, kw_only=True)
class Slab:
    """A few planes under the brush: their axes, HU so far, and irregularities."""

    grid: Grid
    hu: Array
    rough: Array
    fine: Array
    edge_mm: float

    def part(self, low: Points, high: Points) -> "Slab | None":
        """The slab within bounds, over the same HU; None where it does not reach."""
        box = box_of(self.grid, low, high)
        if box is None:
            return None
        return Slab(
            grid=cut(self.grid, box), hu=self.hu[box], rough=self.rough[box], fine=self.fine[box], edge_mm=self.edge_mm
        )

    def lay(self, distance: Array, value: float | Array) -> None:
        """Fill the inside of a surface."""
        lay(self.hu, distance, value, self.edge_mm)


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """Everything that is drawn, in the thorax's own coordinates; nodules are in LPS, which is off by `offset_mm`."""

    thorax: Thorax
    skeleton: Skeleton
    vessels: Segments
    airways: Segments
    nodules: tuple[PhantomNodule, ...]
    offset_mm: Points

    def slices(self, corner: Points, spacing_mm: Sequence[float], shape: tuple[int, int, int]) -> tuple[Array, Array]:
        """Ideal HU and share of parenchyma, [k, j, i]; each slice is the mean over its thickness."""
        dz, dy, dx = spacing_mm
        planes = int(np.clip(round(dz / PLANE_MM), 1, 4))
        hu, lung = np.empty(shape, dtype=np.float32), np.empty(shape, dtype=np.float32)
        for first in range(0, shape[0], SLAB_SLICES):
            count = min(SLAB_SLICES, shape[0] - first)
            low = corner + np.array([0, 0, (first - 0.5 + 0.5 / planes) * dz])
            grid = axes_of(low, (dx, dy, dz / planes), (count * planes, *shape[1:]))
            drawn, share = self.planes(grid, 1.15 * dx)
            hu[first : first + count] = sum(drawn[n::planes] for n in range(planes)) / planes
            lung[first : first + count] = sum(share[n::planes] for n in range(planes)) / planes
        return hu, lung

    def planes(self, grid: Grid, edge_mm: float) -> tuple[Array, Array]:
        """HU and share of parenchyma of a few planes."""
        hu = np.full((grid[2].size, grid[1].size, grid[0].size), np.float32(AIR_HU))
        share = np.zeros_like(hu)
        draw_table(hu, grid, edge_mm)
        box = box_of(grid, BODY_LOW, BODY_HIGH)
        chest = box_of(grid, CHEST_LOW, CHEST_HIGH)
        if box is None or chest is None:
            return hu, share
        inner = cut(grid, box)
        thorax = self.thorax
        body = Slab(
            grid=inner, hu=hu[box], rough=thorax.wobble(*inner), fine=thorax.fine_wobble(*inner), edge_mm=edge_mm
        )
        core = body.part(CHEST_LOW, CHEST_HIGH)
        if core is None:
            return hu, share
        skin = draw_wall(body)
        draw_organs(core, thorax)
        draw_skeleton(body, self.skeleton, skin)
        pleura = pleura_distance(thorax, core.grid)
        core.lay(pleura - 1.0, SOFT_HU)
        share[chest] = np.clip(0.5 - pleura / np.float32(edge_mm), 0, 1)
        draw_parenchyma(core, share[chest])
        self.draw_trees(core)
        for nodule in self.nodules:
            self.draw_nodule(core, nodule)
        return hu, share

    def draw_trees(self, slab: Slab) -> None:
        """Vessels of the lungs, and airways with their walls."""
        lay(slab.hu, -vessel_share(slab.grid, self.vessels, slab.edge_mm), VESSEL_HU, 1.0)
        wall, lumen = far(slab.grid), far(slab.grid)
        for box, radius, distance in cones(slab.grid, self.airways, 3.0):
            np.minimum(lumen[box], distance, out=lumen[box])
            np.minimum(wall[box], distance - (0.45 + 0.14 * radius), out=wall[box])
        central = tube_distance(slab.grid, self.thorax.airways, 3.0)
        slab.lay(np.minimum(wall, central - 1.3), AIRWAY_WALL_HU)
        slab.lay(np.minimum(lumen, central), LUMEN_HU)

    def draw_nodule(self, slab: Slab, nodule: PhantomNodule) -> None:
        """One nodule, with its solid core where it has one."""
        centre = np.array(nodule.centre_lps_mm) - self.offset_mm
        reach = nodule.shape.reach_mm + 2 * slab.edge_mm
        part = slab.part(centre - reach, centre + reach)
        if part is None:
            return
        x, y, z = (axis - np.float32(c) for axis, c in zip(part.grid, centre, strict=True))
        hazy = nodule.core is not None
        edge_mm = part.edge_mm * (2.5 if hazy else 1.0)
        lay(part.hu, nodule.shape.whole(x, y, z), nodule.hu + (35 if hazy else 10) * part.fine, edge_mm)
        if nodule.core is not None:
            cx, cy, cz = (np.float32(value) for value in nodule.core.offset_mm)
            part.lay(nodule.core.shape.whole(x - cx, y - cy, z - cz), nodule.core.hu + 10 * part.fine)


def draw_table(hu: Array, grid: Grid, edge_mm: float) -> None:
    """The curved table top under its mattress."""
    x, y, _ = grid
    bow = y - (TABLE_Y + 9 - x * x / 2100)
    lay(hu, np.maximum(np.maximum(bow - 12, -bow), np.abs(x) - 190), FOAM_HU, edge_mm)
    lay(hu, np.maximum(np.abs(bow - 14) - 1.6, np.abs(x) - 196), TABLE_HU, edge_mm)


def draw_wall(slab: Slab) -> Array:
    """Skin, fat, the muscles of the chest wall and the fat between them; returns the distance to the skin."""
    x, y, z = slab.grid
    skin: Array = np.maximum(section(SKIN, x, y, z) + slab.rough, y - TABLE_Y)
    slab.lay(skin, SKIN_HU)
    slab.lay(skin + 1.8, FAT_HU + 5 * slab.fine)
    muscle = section(MUSCLE, x, y, z)
    planes = np.minimum(np.abs(muscle + 9 + 6 * slab.rough), np.abs(muscle + 20 - 8 * slab.rough))
    for centre, radii in MUSCLES:
        bulk = Ellipsoid(name="muscle", centre=centre, radii=radii, hu=MUSCLE_HU)
        for side in (-1, 1):
            middle = np.array(centre) * (side, 1, 1)
            box = box_of(slab.grid, middle - np.array(radii) - 5, middle + np.array(radii) + 5)
            if box is not None:
                bx, by, bz = cut(slab.grid, box)
                belly = ellipsoid(bulk, side * bx, by, bz)
                muscle[box] = np.minimum(muscle[box], belly)
                planes[box] = np.where(belly < -2, 9, np.minimum(planes[box], np.abs(belly)))
    slab.lay(np.maximum(muscle + 3 * slab.rough, skin + 5), MUSCLE_HU + 4 * slab.fine)
    slab.lay(np.maximum(planes - 0.8 - 0.9 * slab.fine, skin + 8), FAT_HU)
    return skin


def draw_organs(slab: Slab, thorax: Thorax) -> None:
    """What lies within the rib cage beside the lungs."""
    cage = cage_distance(*slab.grid)
    slab.lay(cage - 4.5, MUSCLE_HU - 6)
    slab.lay(cage + 1.0, FAT_HU + 8 + 9 * slab.fine)
    for organ in (*ABDOMEN, *HEART):
        reach = np.array([max(organ.radii[:2]) + 4, max(organ.radii[:2]) + 4, organ.radii[2] + 4])
        box = box_of(slab.grid, np.array(organ.centre) - reach, np.array(organ.centre) + reach)
        if box is not None:
            surface = np.maximum(ellipsoid(organ, *cut(slab.grid, box)) + slab.rough[box], cage[box] + 3)
            lay(slab.hu[box], surface, organ.hu + 2 * slab.fine[box], slab.edge_mm)
    slab.lay(tube_distance(slab.grid, thorax.oesophagus, 3.0), SOFT_HU)
    slab.lay(tube_distance(slab.grid, (*thorax.vessels, *thorax.hila.vessels), 3.0), BLOOD_HU)
    for centre in LYMPH_NODES:
        part = slab.part(np.array(centre) - 10.0, np.array(centre) + 10.0)
        if part is not None:
            node = Ellipsoid(name="lymph node", centre=centre, radii=(4.5, 3.2, 6), hu=SOFT_HU)
            part.lay(ellipsoid(node, *part.grid), node.hu)


def draw_skeleton(slab: Slab, skeleton: Skeleton, skin: Array) -> None:
    """Ribs, cartilages, vertebrae, sternum, shoulder blades: marrow in a shell of compact bone."""
    slab.lay(tube_distance(slab.grid, skeleton.cartilages, 3.0), CARTILAGE_HU)
    bone = tube_distance(slab.grid, skeleton.bones, 3.0)
    middle = box_of(slab.grid, np.array([-45.0, -1e3, -1e3]), np.array([45.0, 1e3, 1e3]))
    back = box_of(slab.grid, np.array([-1e3, 40.0, -1e3]), np.array([1e3, 1e3, 1e3]))
    if middle is None or back is None:
        return
    inner = cut(slab.grid, middle)
    discs, vertebrae, canal = spine(*inner)
    lay(slab.hu[middle], discs, DISC_HU, slab.edge_mm)
    bone[middle] = np.minimum(bone[middle], np.minimum(vertebrae, sternum(*inner)))
    bone[back] = np.minimum(bone[back], scapulae(*cut(slab.grid, back)))
    bone = np.maximum(bone, skin + 5)
    slab.lay(bone, CORTEX_HU)
    slab.lay(bone + CORTEX_MM, MARROW_HU + 35 * slab.fine)
    lay(slab.hu[middle], canal, FAT_HU, slab.edge_mm)
    lay(slab.hu[middle], canal + 2.5, SOFT_HU, slab.edge_mm)


def draw_parenchyma(slab: Slab, share: Array) -> None:
    """Lung tissue, denser to the back where it lies lowest, with its fissures."""
    x, y, z = slab.grid
    oblique, horizontal = fissures(x, y, z)
    seam = np.exp(-((oblique / FISSURE_MM) ** 2))
    seam += np.exp(-((horizontal / FISSURE_MM) ** 2)) * ((oblique < 0) & (x < 0))
    tissue = PARENCHYMA_HU + GRAVITY_HU_PER_MM * y + 12 * slab.rough + FISSURE_HU * seam
    slab.hu[...] += share * (tissue - slab.hu)


def vessel_share(grid: Grid, vessels: Segments, edge_mm: float) -> Array:
    """How much of each voxel is vessel, less one half; thin vessels keep their cross-section."""
    share = np.full((grid[2].size, grid[1].size, grid[0].size), np.float32(-0.5))
    for box, radius, distance in cones(grid, vessels, edge_mm):
        kept = radius**2 / (radius**2 + np.float32(edge_mm**2 / 12))
        np.maximum(share[box], np.clip(0.5 - distance / np.float32(edge_mm), 0, 1) * kept - 0.5, out=share[box])
    return share
