"""One click, one nodule: the solid nodule around a point of a native chest CT.

Rays from the middle of the nodule look for the place where HU falls half way to that of the lung.
Rays that run into a vessel are replaced by what the others say (:mod:`.rays`); where the nodule
sits on the pleura, the lung's surface beside it is continued underneath (:mod:`.pleura`). The
clinician confirms the result. Research use only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..volume import Volume
from .pleura import LungSurface, Wall
from .rays import Rays, close_surface, first_crossing, sphere_directions

#: How far from the click the nodule may be, mm.
_SEARCH_MM = 3.0
_LUNG_BELOW_HU = -500.0
_LUNG_WITHIN_MM = 20.0
_MINIMUM_CONTRAST = 300.0
_BRIGHTEST_HU = 100.0  # bone and calcium do not raise the level
_SMALLEST_RADIUS_MM = 1.2
#: A wall opens a broad cone: length of the mean open direction (a cone of share f has f (1 - f)).
_WALL_CONE = 0.04
#: Rays that run on to twice the radius: more than this share, and it is a vessel.
_VESSEL_SHARE = 0.10
_FEWEST_RAYS = 0.25
_ITERATIONS = 12
_SAMPLES = 4  # along each edge of a voxel that the cut runs through


@dataclass
class _Body:
    """The nodule's surface as it is known: radius in mm (N,) along the rays from ``center``."""

    center: np.ndarray
    level: float
    radius: np.ndarray
    stayed: np.ndarray
    wall: Wall | None


def segment_nodule(
    volume: Volume, point_lps: np.ndarray, maximum_diameter_mm: float = 40.0
) -> Volume:
    """The solid nodule at or within 3 mm of a point, as a uint8 mask (1 is nodule).

    ``volume`` is a native chest CT in HU, ``point_lps`` (3,) in mm. The mask lies on the volume's
    own voxels, cropped to the nodule with a margin, ready for :func:`.measures.measure`. Attached
    vessels and the chest wall are cut off. Raises :class:`InputError` when the point is outside the
    image, nothing dense is near it, or what is there is no compact nodule of at most
    ``maximum_diameter_mm`` in the lung.
    """
    point = np.asarray(point_lps, float).reshape(-1)
    if point.shape != (3,) or not np.isfinite(point).all():
        raise InputError("The click must be one point: x, y, z in LPS mm.")
    if not 3 <= maximum_diameter_mm <= 200:
        raise InputError("The largest nodule to look for must be 3 to 200 mm wide.")
    if not volume.grid.contains(point[None])[0]:
        raise InputError(f"The point {_place(point)} lies outside the image.")
    volume = _around(volume, point, maximum_diameter_mm + 10)
    center, level = _start(volume, point, max(_LUNG_WITHIN_MM, 0.75 * maximum_diameter_mm))
    body = _grow(volume, center, level, maximum_diameter_mm)
    _check(volume, body, point, maximum_diameter_mm)
    return _mask(volume, body, point)


def _place(point: np.ndarray) -> str:
    return "(" + ", ".join(f"{value:.1f}" for value in point) + ") mm LPS"


def _around(volume: Volume, point: np.ndarray, reach: float) -> Volume:
    """The part of the volume within ``reach`` mm (along the axes) of a point, float32."""
    grid = volume.grid
    middle = grid.to_index(point[None])[0]
    half = reach / np.asarray(grid.spacing)
    low = np.maximum(np.floor(middle - half).astype(int), 0)
    high = np.minimum(np.ceil(middle + half).astype(int) + 1, grid.size)
    box = tuple(slice(a, b) for a, b in zip(low[::-1], high[::-1], strict=True))
    part = grid.padded(tuple(-low), tuple(high - np.asarray(grid.size)))
    return Volume(volume.array[box].astype(np.float32), part)


def _start(volume: Volume, point: np.ndarray, reach: float) -> tuple[np.ndarray, float]:
    """A first place inside the nodule (3,) LPS mm, and the HU half way between it and the lung.

    ``reach`` (mm, along the axes) is how far the lung is looked for.
    """
    values = _around(volume, point, reach).array
    air = values[(values < _LUNG_BELOW_HU) & (values > -1000)]
    if air.size < 50:
        raise InputError(f"There is no lung around the point {_place(point)}.")
    lung = float(np.median(air))
    click = _around(volume, point, max(_SEARCH_MM, 1.01 * max(volume.grid.spacing)))
    brightest = min(float(click.array.max()), _BRIGHTEST_HU)
    if brightest - lung < _MINIMUM_CONTRAST:
        raise InputError(
            f"Nothing as dense as a solid nodule lies within {_SEARCH_MM:.0f} mm of the point "
            f"{_place(point)}."
        )
    level = (brightest + lung) / 2
    rays = Rays.cast(volume, point, np.eye(3), 0.1)
    if rays.values[0, 0] >= level:
        return point, level
    places = click.grid.to_physical(np.argwhere(click.array >= level)[:, ::-1])
    nearest = places[np.argmin(np.linalg.norm(places - point, axis=1))]
    return nearest, level


def _grow(volume: Volume, center: np.ndarray, level: float, maximum: float) -> _Body:
    """Moves the center into the middle of the nodule while its surface is found."""
    directions = sphere_directions()
    body = None
    for _ in range(_ITERATIONS):
        rays = Rays.cast(volume, center, directions, maximum)
        level = _level(rays, level)
        body = _surface(volume, rays, level)
        shift = _centroid_shift(directions, body.radius)
        if body.wall is not None:  # never start behind the wall
            depth = float(body.wall.height(center))
            if depth > -0.3:
                shift = -body.wall.axes[2] * (depth + 1.0)
        if np.linalg.norm(shift) < 0.1:
            break
        center = center + shift
    return body


def _level(rays: Rays, level: float) -> float:
    """HU half way between what is well inside and the lung just outside."""
    length = rays.first_below(level)
    closed = np.isfinite(length)
    if closed.mean() < _FEWEST_RAYS:
        return level
    size = np.quantile(length[closed], 0.4)
    inside = rays.values[:, rays.along <= 0.5 * size]
    beyond = rays.along[None] - length[:, None]
    outside = rays.values[(beyond > 1.5) & (beyond < 6) & (rays.values < level)]
    if outside.size < 20:
        return level
    nodule = min(float(np.median(inside)), _BRIGHTEST_HU)
    lung = float(np.median(outside))
    return (nodule + lung) / 2 if nodule - lung >= _MINIMUM_CONTRAST else level


def _surface(volume: Volume, rays: Rays, level: float) -> _Body:
    """The closed surface seen from one point."""
    length = rays.first_below(level)
    wall = _wall(volume, rays, length, level)
    behind = np.full(len(length), np.inf)
    if wall is not None:
        behind = first_crossing(wall.height(rays.points()), rays.along)
    at_wall = behind <= length
    radius, stayed = close_surface(rays.directions, length, ~at_wall)
    return _Body(rays.center, level, np.minimum(radius, behind), stayed, wall)


def _wall(volume: Volume, rays: Rays, length: np.ndarray, level: float) -> Wall | None:
    """The chest wall (or another broad surface) that the nodule sits on, if it does."""
    size = np.quantile(length, 0.25, method="lower")  # never between two infinite ones
    if not np.isfinite(size):
        return None
    mean = (rays.directions * (length > 2.2 * size)[:, None]).mean(axis=0)
    cone = np.linalg.norm(mean)
    if cone < _WALL_CONE:
        return None
    toward = mean / cone
    dome = length[(rays.directions @ toward < 0.3) & (length < 2.2 * size)]
    if dome.size == 0:
        return None
    hidden = 1.25 * np.quantile(dome, 0.9) + 0.5
    surface = LungSurface(volume, rays.center, level, hidden + 12)
    return surface.fit_wall(rays.center, toward, hidden)


def _centroid_shift(directions: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """From the rays' origin to the centroid of the body (3,), mm."""
    volume = max(float((radius**3 / 3).sum()), 1e-6)
    return (directions * (radius**4 / 4)[:, None]).sum(axis=0) / volume


def _check(volume: Volume, body: _Body, point: np.ndarray, maximum: float) -> None:
    """Raises the sentence that says why this is no nodule."""
    diameter = 2 * float(np.cbrt((body.radius**3).mean()))
    if body.stayed.mean() < _FEWEST_RAYS or diameter > maximum:
        raise InputError(
            f"The tissue at {_place(point)} has no border of a nodule up to {maximum:.0f} mm wide "
            "(chest wall, mediastinum, or a larger tumor?)."
        )
    if diameter < 2 * _SMALLEST_RADIUS_MM:
        raise InputError(
            f"No nodule was found at {_place(point)}: what lies there is less than "
            f"{2 * _SMALLEST_RADIUS_MM:.1f} mm wide."
        )
    if np.linalg.norm(body.center - point) > diameter / 2 + _SEARCH_MM:
        raise InputError(f"No nodule lies within {_SEARCH_MM:.0f} mm of {_place(point)}.")
    rays = Rays.cast(volume, body.center, sphere_directions(), maximum)
    length = rays.first_below(body.level)
    open_rays = length > 2 * np.quantile(body.radius, 0.25)
    if body.wall is not None:
        open_rays &= first_crossing(body.wall.height(rays.points()), rays.along) > length
    if (open_rays & ~body.stayed).mean() > _VESSEL_SHARE:
        raise InputError(
            f"The tissue at {_place(point)} runs on like a vessel: no compact nodule was found."
        )


def _mask(volume: Volume, body: _Body, point: np.ndarray) -> Volume:
    """The voxels inside the surface, on a cropped grid.

    Where the nodule goes over into other tissue the cut runs through voxels. As many of them are
    taken as their inner parts fill, the fullest first: rounding each by itself would add or lose
    a whole layer where the cut is parallel to the voxels.
    """
    from scipy import ndimage

    part = _around(volume, body.center, float(body.radius.max()) + 4 * max(volume.grid.spacing))
    shape = part.array.shape
    dense = np.flatnonzero((part.array >= body.level).ravel())
    index = np.stack(np.unravel_index(dense, shape)[::-1], axis=1)
    share = _share_inside(part, body, index)
    away = np.linalg.norm(part.grid.to_physical(index) - body.center, axis=1)
    fullest = np.lexsort((away, -share))[: round(float(share.sum()))]
    inside = np.zeros(shape, bool)
    inside.ravel()[dense[fullest]] = True
    labels, count = ndimage.label(inside)
    if count == 0:
        raise InputError(f"No nodule was found at {_place(point)}.")
    sizes = np.bincount(labels.ravel())[1:]
    mask = ndimage.binary_fill_holes(labels == 1 + int(np.argmax(sizes)))
    return Volume(mask.astype(np.uint8), part.grid)


def _share_inside(part: Volume, body: _Body, index: np.ndarray) -> np.ndarray:
    """Share (N,) of each dense voxel (index x, y, z) that lies inside the surface."""
    from scipy.spatial import cKDTree

    steps = (np.arange(_SAMPLES) + 0.5) / _SAMPLES - 0.5
    inner = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    voxel = float(np.linalg.norm(part.grid.spacing))
    offset = part.grid.to_physical(index) - body.center
    away = np.linalg.norm(offset, axis=1)
    # A ray that met lung says nothing more than the HU of the voxel there: all of it counts.
    room = np.where(body.stayed, voxel, 0.0)
    tree, share = cKDTree(sphere_directions()), np.zeros(len(index))
    near = np.flatnonzero(away < body.radius.max() + 2 * voxel)
    samples = part.grid.to_physical((index[near, None] + inner[None]).reshape(-1, 3)) - body.center
    length = np.linalg.norm(samples, axis=1)
    ray = tree.query(samples / np.maximum(length, 1e-6)[:, None], k=3)[1]
    inside = length <= (body.radius + room)[ray].mean(axis=1)
    if body.wall is not None:
        inside &= body.wall.height(samples + body.center) < 0
    share[near] = inside.reshape(len(near), -1).mean(axis=1)
    return share
