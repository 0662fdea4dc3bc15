"""What the pictures show: the point, the planes, and per plane every array that is drawn.

Images are sampled in the planes only, so the cost does not grow with the number of slices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .. import quality
from ..result import Result
from ..volume import Volume
from .planes import PLANES, Plane, display_window, plane_through

#: Distance of the samples that choose the point and the windows, mm.
_COARSE_MM = 5.0
#: Slices whose voxels enter the Jacobian histogram, at most.
_HISTOGRAM_SLICES = 12
#: What is shown around the body, mm.
_MARGIN_MM = 8.0


@dataclass(frozen=True)
class PlaneView:
    """The arrays of one plane, cropped to the body; all pictures are (rows, columns).

    ``fixed``, ``before`` and ``after`` are scaled to 0 to 1 (before and after: the moving image as
    its coordinates stand, and registered); ``inside_*`` say where the moving image has data.
    ``difference_*`` are absolute differences in HU (CT) or percent of the window (MR). ``bent``
    are two coordinates in mm, along columns and rows, whose iso-lines are the deformed grid.
    ``outlines_*`` are label maps: fixed, moving before, moving after (None without labels).
    """

    plane: Plane
    fixed: np.ndarray
    before: np.ndarray
    after: np.ndarray
    inside_before: np.ndarray
    inside_after: np.ndarray
    difference_before: np.ndarray
    difference_after: np.ndarray
    bent: tuple[np.ndarray, np.ndarray]
    jacobian: np.ndarray
    body: np.ndarray
    labels: tuple[np.ndarray, np.ndarray, np.ndarray] | None

    @property
    def size_mm(self) -> tuple[float, float]:
        """Width and height of the picture."""
        rows, columns = self.fixed.shape
        return columns * self.plane.pixel_mm[0], rows * self.plane.pixel_mm[1]


@dataclass(frozen=True)
class Scene:
    """All planes with what they share.

    ``point`` is the LPS point through which they are cut; ``overlap`` whether the images
    overlapped before; ``window`` and ``moving_window`` the displayed intensities; ``unit`` and
    ``limit`` belong to the differences.
    """

    point: np.ndarray
    overlap: bool
    window: tuple[float, float]
    moving_window: tuple[float, float]
    unit: str
    limit: float
    views: tuple[PlaneView, ...]


def build_scene(
    result: Result,
    fixed: Volume,
    moving: Volume,
    warped: Volume | None = None,
    labels: tuple[Volume, Volume] | None = None,
) -> Scene:
    """Chooses point and windows, and cuts everything in the three planes.

    ``warped`` (on the fixed grid) saves nothing but guarantees that the picture shows what is
    written; without it the moving image is sampled through the transform.
    """
    grid = result.fixed_grid
    coarse = _coarse_samples(result, fixed, moving)
    window = display_window(coarse.fixed, coarse.body, result.modality)
    moving_window = window
    if result.modality != "ct":  # MR intensities of two scans need not have the same scale
        shown = coarse.body & coarse.inside_after
        values, region = (coarse.after, shown) if shown.any() else (moving.array, moving.array > 0)
        moving_window = display_window(values, region, result.modality)
    point = _point(coarse, window, moving_window)
    planes = [plane_through(grid, name, point) for name in PLANES]
    share = 1.0 if result.modality == "ct" else 100 / (window[1] - window[0])
    views = tuple(
        _view(plane, result, fixed, moving, warped, labels, (window, moving_window))
        for plane in planes
    )
    limit = 0.5 * (window[1] - window[0]) * share
    unit = "HU" if result.modality == "ct" else "% of the display range"
    overlap = bool((coarse.body & coarse.inside_before).any())
    return Scene(point, overlap, window, moving_window, unit, limit, views)


def jacobian_samples(result: Result) -> np.ndarray:
    """Jacobian determinants of body voxels in evenly spread slices: (N,), as the full map has."""
    body = result.body
    hit = np.flatnonzero(body.any(axis=(1, 2)))
    if hit.size == 0:
        body, hit = np.ones_like(body), np.arange(body.shape[0])
    chosen = hit[np.unique(np.linspace(0, hit.size - 1, _HISTOGRAM_SLICES).round().astype(int))]
    values = []
    for k in chosen.tolist():
        first, last = max(k - 1, 0), min(k + 1, body.shape[0] - 1)
        slab = result.fixed_grid.padded((0, 0, -first), (0, 0, last + 1 - body.shape[0]))
        map_ = quality.sample_jacobian(result.field, result.initial, slab).numpy()
        values.append(map_[k - first][body[k]])
    return np.concatenate(values)


# --- sampling ---------------------------------------------------------------------------------


def sample(volume: Volume, points: np.ndarray, outside: float, order: int = 1) -> np.ndarray:
    """Values of a volume at LPS points (..., 3): trilinear, or the nearest voxel (``order`` 0)."""
    index = volume.grid.to_index(points.reshape(-1, 3))[:, ::-1].T
    values = ndimage.map_coordinates(
        volume.array, index, order=order, mode="nearest", output=np.float32
    )
    values[~volume.grid.contains(points.reshape(-1, 3))] = outside
    return values.reshape(points.shape[:-1])


def contains(volume: Volume, points: np.ndarray) -> np.ndarray:
    """Where LPS points (..., 3) lie inside a volume."""
    return volume.grid.contains(points.reshape(-1, 3)).reshape(points.shape[:-1])


def _transform(result: Result, points: np.ndarray) -> np.ndarray:
    return result.transform_points(points.reshape(-1, 3)).reshape(points.shape)


def _view(
    plane: Plane,
    result: Result,
    fixed: Volume,
    moving: Volume,
    warped: Volume | None,
    labels: tuple[Volume, Volume] | None,
    windows: tuple[tuple[float, float], tuple[float, float]],
) -> PlaneView:
    crop = _crop(plane, result.body)
    points = plane.points()[crop]
    moved = _transform(result, points)
    still = plane.cut(fixed.array)[crop].astype(np.float32)
    before = sample(moving, points, result.background)
    if warped is not None and warped.grid.is_close(result.fixed_grid, 1e-2):
        after = plane.cut(warped.array)[crop].astype(np.float32)
    else:
        after = sample(moving, moved, result.background)
    scaled = [_scale(still, windows[0]), _scale(before, windows[1]), _scale(after, windows[1])]
    bent = points + result.field.sample(points.reshape(-1, 3)).reshape(points.shape)
    slab, middle = plane.slab()
    jacobian = quality.sample_jacobian(result.field, result.initial, slab).numpy()
    outlines = None
    if labels is not None:
        outlines = (
            sample(labels[0], points, 0, order=0),
            sample(labels[1], points, 0, order=0),
            sample(labels[1], moved, 0, order=0),
        )
    return PlaneView(
        plane,
        *scaled,
        contains(moving, points),
        contains(moving, moved),
        *(_difference(still, other, windows, result.modality) for other in (before, after)),
        (bent @ np.asarray(plane.right), bent @ np.asarray(plane.down)),
        plane.upright(np.take(jacobian, middle, axis=2 - plane.axis))[crop],
        plane.cut(result.body)[crop],
        outlines,
    )


def _scale(values: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    return np.clip((values - window[0]) / (window[1] - window[0]), 0, 1)


def _difference(
    fixed: np.ndarray,
    other: np.ndarray,
    windows: tuple[tuple[float, float], tuple[float, float]],
    modality: str,
) -> np.ndarray:
    """Absolute difference: HU for CT, percent of the display window for MR."""
    if modality == "ct":
        return np.abs(other - fixed)
    return 100 * np.abs(_scale(other, windows[1]) - _scale(fixed, windows[0]))


def _crop(plane: Plane, body: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of the picture that hold the whole body, in any slice, plus a margin."""
    shadow = plane.upright(body.any(axis=2 - plane.axis))
    if not shadow.any():
        return slice(None), slice(None)
    found = []
    for axis, size in ((0, plane.pixel_mm[1]), (1, plane.pixel_mm[0])):
        hit = np.flatnonzero(shadow.any(axis=1 - axis))
        margin = int(np.ceil(_MARGIN_MM / size))
        found.append(slice(max(int(hit[0]) - margin, 0), int(hit[-1]) + 1 + margin))
    return found[0], found[1]


# --- the point --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Coarse:
    """Every few millimeters: values (Z, Y, X) of both images, and the LPS points (..., 3)."""

    points: np.ndarray
    fixed: np.ndarray
    before: np.ndarray
    after: np.ndarray
    inside_before: np.ndarray
    inside_after: np.ndarray
    body: np.ndarray


def _coarse_samples(result: Result, fixed: Volume, moving: Volume) -> _Coarse:
    grid = result.fixed_grid
    steps = [max(1, round(_COARSE_MM / s)) for s in grid.spacing]
    # The remainder is shared out, so the samples lie in the middle.
    axes = [np.arange((n - 1) % s // 2, n, s) for n, s in zip(grid.size, steps, strict=True)]
    z, y, x = np.meshgrid(*axes[::-1], indexing="ij")
    points = grid.to_physical(np.stack([x, y, z], axis=-1).reshape(-1, 3)).reshape(*x.shape, 3)
    moved = _transform(result, points)
    chosen = np.ix_(*axes[::-1])
    body = result.body[chosen]
    return _Coarse(
        points,
        fixed.array[chosen].astype(np.float32),
        sample(moving, points, result.background),
        sample(moving, moved, result.background),
        contains(moving, points),
        contains(moving, moved),
        body if body.any() else np.ones_like(body),
    )


def _point(
    coarse: _Coarse, window: tuple[float, float], moving_window: tuple[float, float]
) -> np.ndarray:
    """The LPS point (3,) to cut through: per axis the slice in which the images differed most
    before, in the inner part of what both show of the body; its middle where nothing differed or
    they did not overlap before."""
    difference = np.abs(_scale(coarse.fixed, window) - _scale(coarse.before, moving_window))
    shown = coarse.body & coarse.inside_after
    shown = shown if shown.any() else coarse.body
    difference = np.where(shown & coarse.inside_before, difference, 0)
    nearest = []
    for axis in range(3):
        others = tuple(k for k in range(3) if k != axis)
        hit = np.flatnonzero(shown.any(axis=others))
        low, high = _inner(int(hit[0]), int(hit[-1]))
        profile = ndimage.gaussian_filter1d(difference.sum(axis=others), 1.0)[low : high + 1]
        flat = np.ptp(profile) < 1e-6
        nearest.append((low + high) // 2 if flat else low + int(profile.argmax()))
    return coarse.points[tuple(nearest)]


def _inner(first: int, last: int) -> tuple[int, int]:
    """The middle 60 percent of an index range."""
    margin = int(0.2 * (last - first + 1))
    return first + margin, last - margin
