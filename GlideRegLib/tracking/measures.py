"""Measures of one nodule on its native image: diameters, volume, density, mass.

Native means: as the scanner made it. A warped image must not be measured, because the displacement
field takes up growth. Diameters and volume use the share of nodule in each voxel
(:mod:`.occupancy`), so they do not jump by whole voxels. Research use only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..geometry import Grid
from ..volume import Volume
from .occupancy import nodule_occupancy

#: Around the mask, mm: enough lung to know its HU.
_MARGIN_MM = 8.0
#: A contour that spreads less than this across its length, in voxels, has no area.
_FLAT_VOXELS = 1e-6


@dataclass(frozen=True)
class Measurement:
    """One nodule in one scan.

    ``long_diameter_mm`` is the longest one in any axial slice, ``short_diameter_mm`` the longest
    one perpendicular to it in that slice, ``mean_diameter_mm`` their mean (as Lung-RADS and the
    Fleischner Society measure). ``equivalent_diameter_mm`` is that of the sphere of equal volume.
    ``mean_hu`` leaves out the voxels of the surface where enough others remain. ``mass_mg`` is
    volume x (mean HU + 1000) / 1000. ``voxels`` is the size of the mask, ``centroid`` is in LPS mm,
    ``slice_thickness_mm`` the distance of the axial slices. ``partial_volume`` says whether voxels
    at the surface were counted by their share.
    """

    volume_mm3: float
    long_diameter_mm: float
    short_diameter_mm: float
    mean_diameter_mm: float
    equivalent_diameter_mm: float
    mean_hu: float
    mass_mg: float
    voxels: int
    centroid: tuple[float, float, float]
    slice_thickness_mm: float
    partial_volume: bool = True


def measure(volume: Volume, mask: Volume | np.ndarray) -> Measurement:
    """Measures a nodule; ``volume`` is the native CT in HU.

    ``mask`` is a (Z, Y, X) array of the volume's shape, or a Volume on its grid or on a part of it
    (voxels at the same places); what is not 0 is nodule. Raises :class:`InputError` for an empty
    mask or one that lies on another grid.
    """
    image, region, grid = _cropped(volume, mask)
    occupancy = nodule_occupancy(image, region, grid.spacing)
    share = occupancy.share
    total = float(share.sum())
    voxel = float(np.prod(grid.spacing)) * abs(np.linalg.det(grid.direction_matrix))
    where = np.argwhere(share != 0)
    center = (where * share[share != 0][:, None]).sum(axis=0)[::-1] / total
    long_diameter, short_diameter = _diameters(share, grid)
    return Measurement(
        volume_mm3=total * voxel,
        long_diameter_mm=long_diameter,
        short_diameter_mm=short_diameter,
        mean_diameter_mm=(long_diameter + short_diameter) / 2,
        equivalent_diameter_mm=float(np.cbrt(6 * total * voxel / np.pi)),
        mean_hu=occupancy.inside_hu,
        mass_mg=total * voxel * max(occupancy.inside_hu + 1000, 0) / 1000,
        voxels=int(region.sum()),
        centroid=tuple(float(c) for c in grid.to_physical(center[None])[0]),
        slice_thickness_mm=float(grid.spacing[axial_axis(grid)]),
        partial_volume=occupancy.partial,
    )


def axial_axis(grid: Grid) -> int:
    """Which index axis (0, 1, 2 for x, y, z) runs most nearly from feet to head."""
    return int(np.argmax(np.abs(grid.direction_matrix[2])))


def _cropped(volume: Volume, mask: Volume | np.ndarray) -> tuple[np.ndarray, np.ndarray, Grid]:
    """HU float32, mask bool, and grid of a box with some margin around the mask."""
    if isinstance(mask, Volume):
        start, values = _offset(volume.grid, mask.grid), mask.array
    else:
        start, values = np.zeros(3, int), np.asarray(mask)
        if values.shape != volume.array.shape:
            raise InputError(
                f"The mask of shape {values.shape} does not fit the image of shape "
                f"{volume.array.shape} (Z, Y, X)."
            )
    marked = np.argwhere(values != 0)
    if len(marked) == 0:
        raise InputError("The mask holds no voxel of the nodule: there is nothing to measure.")
    spacing = np.asarray(volume.grid.spacing)
    margin = np.maximum(np.ceil(_MARGIN_MM / spacing), 2)[::-1].astype(int)
    marked += start[::-1]
    low = np.maximum(marked.min(axis=0) - margin, 0)
    high = np.minimum(marked.max(axis=0) + margin + 1, volume.array.shape)
    image = volume.array[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    region = np.zeros(image.shape, bool)
    region[tuple((marked - low).T)] = True
    last = np.asarray(volume.array.shape) - high
    grid = volume.grid.padded(tuple(-low[::-1]), tuple(-last[::-1]))
    return image.astype(np.float32), region, grid


def lies_on(whole: Grid, part: Grid) -> bool:
    """Whether the voxels of one grid are voxels of the other."""
    start = whole.to_index(np.asarray(part.origin)[None])[0]
    end = np.rint(start) + np.asarray(part.size)
    return bool(
        np.allclose(whole.spacing, part.spacing, rtol=1e-3)
        and np.allclose(whole.direction, part.direction, atol=1e-3)
        and np.abs(start - np.rint(start)).max() < 0.05
        and (np.rint(start) >= 0).all()
        and (end <= whole.size).all()
    )


def _offset(whole: Grid, part: Grid) -> np.ndarray:
    """Index (x, y, z) of the part's first voxel in the whole grid."""
    if not lies_on(whole, part):
        raise InputError(
            "The mask does not lie on the voxels of the image; resample it (nearest neighbor) onto "
            "the image that is measured."
        )
    return np.rint(whole.to_index(np.asarray(part.origin)[None])[0]).astype(int)


# --- diameters ------------------------------------------------------------------------------------


def _diameters(share: np.ndarray, grid: Grid) -> tuple[float, float]:
    """Long and short diameter in mm in the axial slice whose long diameter is longest."""
    axis = 2 - axial_axis(grid)  # of the array
    across = [a for a in range(3) if a != axis]
    slices = np.moveaxis(share, axis, 0)
    # Columns of the index matrix: one step along the two array axes in the slice, mm.
    matrix = grid.matrix[:3, :3]
    steps = np.stack([matrix[:, 2 - a] for a in across])
    best = (0.0, 0.0)
    for plane in slices[(slices >= 0.5).any(axis=(1, 2))]:
        best = max(best, _caliper(_contour(plane), steps))
    return best


def _contour(plane: np.ndarray) -> np.ndarray:
    """Where a slice of shares crosses one half, (N, 2) in voxels: on the lines between voxels."""
    plane = np.pad(plane, 1)
    points = []
    for axis in (0, 1):
        lower, upper = (
            np.moveaxis(plane, axis, 0)[:-1],
            np.moveaxis(plane, axis, 0)[1:],
        )
        row, column = np.nonzero((lower >= 0.5) != (upper >= 0.5))
        a, b = lower[row, column], upper[row, column]
        found = np.stack([row + (0.5 - a) / (b - a), column], axis=1)
        points.append(found if axis == 0 else found[:, ::-1])
    return np.concatenate(points) - 1


def _caliper(points: np.ndarray, steps: np.ndarray) -> tuple[float, float]:
    """Longest diameter of a contour (N, 2), and the longest chord of its hull perpendicular to it.

    ``steps`` (2, 3) are the mm of one voxel along each of the two axes. A contour without area has
    a length at most: where a few voxels hold exactly half a nodule, it is a line or a point.
    """
    from scipy.spatial import ConvexHull

    spread, along_line = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)[1:]
    if (spread > _FLAT_VOXELS).sum() < 2:
        extent = np.ptp(points @ along_line[0])
        return float(extent * np.linalg.norm(along_line[0] @ steps)), 0.0
    hull = points[ConvexHull(points).vertices]
    vectors = (hull[:, None] - hull[None]) @ steps
    lengths = np.linalg.norm(vectors, axis=2)
    i, j = np.unravel_index(np.argmax(lengths), lengths.shape)
    along = vectors[i, j] / lengths[i, j]
    placed = (hull - hull[j]) @ steps
    # A second direction in the plane of the slice, perpendicular to the diameter.
    normal = np.cross(steps[0], steps[1])
    across = np.cross(normal / np.linalg.norm(normal), along)
    u, v = placed @ along, placed @ across
    return float(lengths[i, j]), _longest_chord(u, v)


def _longest_chord(u: np.ndarray, v: np.ndarray) -> float:
    """Longest extent in v at one u of the convex polygon with these corners."""
    first, last = int(np.argmin(u)), int(np.argmax(u))
    slope = (v[last] - v[first]) / max(u[last] - u[first], 1e-9)
    above = v >= v[first] + slope * (u - u[first])
    widths = []
    for side in (above, ~above):
        side = side.copy()
        side[[first, last]] = True
        order = np.argsort(u[side])
        widths.append(np.interp(u, u[side][order], v[side][order]))
    return float((widths[0] - widths[1]).max())
