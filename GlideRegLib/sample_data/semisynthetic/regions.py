"""Where a chest CT may move: lungs, a still spine, a still skin. Coarse masks for smooth fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ...errors import InputError
from ...geometry import Grid
from ...prepare import body_mask
from ...volume import Volume

_AERATED_HU = -400.0
_BONE_HU = 250.0
_COARSE_MM = 4.0


@dataclass(frozen=True)
class Regions:
    """Masks (Z, Y, X) bool on a coarse ``grid`` of about 4 mm: lungs, body, and the spine."""

    lungs: np.ndarray
    body: np.ndarray
    spine: np.ndarray
    grid: Grid

    def mobility(self, grid: Grid) -> np.ndarray:
        """How freely tissue moves at the nodes of ``grid`` (Z, Y, X): 0 to 1, smooth.

        Zero at the skin, outside the body and at the spine, one from 30 mm away from them.
        """
        spacing = self.grid.spacing[::-1]
        # The image's lower and upper ends are no skin: the body goes on beyond them. Its sides are
        # taken as skin where the scan cuts the body off.
        body = np.pad(self.body, ((40, 40), (0, 0), (0, 0)), mode="edge")
        body = np.pad(body, ((0, 0), (1, 1), (1, 1)))
        depth = ndimage.distance_transform_edt(body, sampling=spacing)[40:-40, 1:-1, 1:-1]
        away = ndimage.distance_transform_edt(~self.spine, sampling=spacing)
        coarse = _smooth_step((depth - 9) / 26) * _smooth_step((away - 2) / 28)
        values = self.sample(coarse.astype(np.float32), grid)
        return ndimage.gaussian_filter(values, 1.2)

    def sample(self, values: np.ndarray, grid: Grid, order: int = 1) -> np.ndarray:
        """A coarse array (Z, Y, X) at the voxels of another grid with the same axes."""
        nearest = "nearest"  # beyond the ends the last slice goes on
        return ndimage.map_coordinates(values, _indices(self.grid, grid), order=order, mode=nearest)

    def lungs_at(self, points: np.ndarray) -> np.ndarray:
        """Which LPS points (N, 3) lie in the lungs: bool (N,)."""
        index = np.rint(self.grid.to_index(points)).astype(int)
        inside = ((index >= 0) & (index < self.grid.size)).all(axis=1)
        x, y, z = np.where(inside[:, None], index, 0).T
        return self.lungs[z, y, x] & inside


def find_regions(
    image: Volume, labels: Volume | None = None, lung_labels: Sequence[int] = ()
) -> Regions:
    """Finds lungs, body and spine of a chest CT (HU), or takes the lungs from a label map.

    Raises :class:`InputError` when the image is not a chest CT in LPS axes.
    """
    _require_axial(image.grid)
    step = [max(1, round(_COARSE_MM / s)) for s in image.grid.spacing]
    pick = tuple(slice(None, None, s) for s in step[::-1])
    grid = Grid(
        tuple(-(-n // s) for n, s in zip(image.grid.size, step, strict=True)),
        tuple(s * n for s, n in zip(image.grid.spacing, step, strict=True)),
        image.grid.origin,
        image.grid.direction,
    )
    coarse = Volume(np.ascontiguousarray(image.array[pick], dtype=np.float32), grid)
    body = body_mask(coarse, "ct")
    if labels is not None and lung_labels:
        lungs = np.isin(labels.array[pick], lung_labels)
    else:
        lungs = _aerated(coarse.array, body)
    share = lungs.mean()
    if not 0.01 < share < 0.5:
        raise InputError(
            f"No lungs were found in this image ({share:.1%} of it); a chest CT is needed."
        )
    lungs = (
        ndimage.binary_closing(lungs, iterations=3) | lungs
    )  # vessels and bronchi belong to them
    return Regions(lungs, body | lungs, _spine(coarse.array, lungs), grid)


def lung_label_map(image: Volume, regions: Regions) -> Volume:
    """A label map on the image's own grid: 1 in the lungs, vessels included (uint8)."""
    near = regions.sample(regions.lungs.astype(np.float32), image.grid) > 0.1
    lungs = near & (image.array < _AERATED_HU)
    lungs = np.stack([ndimage.binary_fill_holes(plane) for plane in lungs])
    return Volume(lungs.astype(np.uint8), image.grid)


def _aerated(array: np.ndarray, body: np.ndarray) -> np.ndarray:
    """Large air spaces inside the body: the lungs (both, or one component through the airways)."""
    parts, count = ndimage.label((array < _AERATED_HU) & body)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    return np.isin(parts, np.flatnonzero(sizes > 0.1 * max(sizes.max(), 1)))


def _spine(array: np.ndarray, lungs: np.ndarray) -> np.ndarray:
    """Bone between the lungs and behind their middle; a tube, so that the arches belong to it."""
    _, y, x = np.nonzero(lungs)
    bone = ndimage.binary_opening(array > _BONE_HU)
    middle, width = x.mean(), x.max() - x.min()
    columns = np.abs(np.arange(array.shape[2]) - middle) < 0.18 * width
    rows = np.arange(array.shape[1]) > y.mean() + 0.1 * (y.max() - y.min())
    return ndimage.binary_closing(bone & rows[None, :, None] & columns, iterations=2)


def _require_axial(grid: Grid) -> None:
    if np.abs(grid.direction_matrix - np.eye(3)).max() > 1e-3:
        raise InputError(
            "Semi-synthetic pairs need an image whose axes run left, back and up (LPS)."
        )


def _indices(source: Grid, target: Grid) -> np.ndarray:
    """Source indices (3, Z, Y, X), z y x order, of all voxels of a grid with the same axes."""
    return np.stack(np.meshgrid(*axis_indices(source, target)[::-1], indexing="ij"))


def axis_indices(source: Grid, target: Grid) -> list[np.ndarray]:
    """Continuous source indices along x, y and z of a target grid with the same directions."""
    first = source.to_index(np.asarray(target.origin)[None])[0]
    step = np.asarray(target.spacing) / np.asarray(source.spacing)
    return [first[i] + step[i] * np.arange(target.size[i]) for i in range(3)]


def _smooth_step(values: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, smooth in between."""
    values = np.clip(values, 0, 1)
    return values * values * (3 - 2 * values)
