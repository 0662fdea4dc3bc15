"""From two files to two images on one working grid: modality, intensities, body mask, grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import ndimage

from .errors import InputError
from .field import affine_to_sitk
from .geometry import Grid
from .volume import Volume

#: Intensity range kept for CT, HU. Below: padding outside the scan circle; above: metal.
CT_RANGE = (-1024.0, 1500.0)
#: What counts as tissue in CT, HU.
TISSUE_HU = -400.0
#: Air with a median below this lies around the patient; lung that a crop cut open is denser.
OUTSIDE_AIR_HU = -950.0
#: MR intensities are scaled so that the 99.5th percentile of the foreground becomes this.
MR_SCALE = 1000.0


@dataclass(frozen=True)
class Prepared:
    """The pair on the working grid.

    ``fixed`` and ``moving`` are float32 (Z, Y, X): HU for CT, scaled intensities for MR; the moving
    image went through ``initial`` (4x4, fixed LPS mm to moving LPS mm). ``*_mask`` (bool) say
    which region counts (tissue, or the user's mask), ``*_inside`` (bool) where the image has data
    at all.
    """

    fixed: torch.Tensor
    moving: torch.Tensor
    fixed_mask: torch.Tensor
    moving_mask: torch.Tensor
    fixed_inside: torch.Tensor
    moving_inside: torch.Tensor
    grid: Grid
    initial: np.ndarray
    modality: str

    def to(self, device: str) -> Prepared:
        """The same with its tensors on a device."""
        return replace(
            self,
            **{
                name: value.to(device)
                for name, value in vars(self).items()
                if isinstance(value, torch.Tensor)
            },
        )


def detect_modality(volume: Volume) -> str:
    """ "ct" when the values look like HU (air far below zero), else "mr"."""
    low = float(np.percentile(volume.array[::2, ::2, ::2], 2))
    return "ct" if low < -200 else "mr"


def background_value(volume: Volume, modality: str) -> float:
    """The value of "nothing here": -1024 HU for CT, the darkest value for MR."""
    return CT_RANGE[0] if modality == "ct" else float(volume.array.min())


def normalize_intensity(volume: Volume, modality: str) -> Volume:
    """CT: HU clipped to [-1024, 1500]. MR: 0 to about 1000, by percentiles of the foreground."""
    array = volume.array
    if modality == "ct":
        return Volume(np.clip(array, *CT_RANGE), volume.grid)
    low = float(array.min())
    foreground = array[array > low + 0.05 * (float(np.percentile(array, 99)) - low)]
    high = float(np.percentile(foreground if foreground.size else array, 99.5))
    scaled = (array - low) * (MR_SCALE / max(high - low, 1e-6))
    return Volume(np.clip(scaled, 0, 1.5 * MR_SCALE).astype(np.float32), volume.grid)


def body_mask(volume: Volume, modality: str) -> np.ndarray:
    """The patient without the table: bool (Z, Y, X).

    CT: tissue above -400 HU, opened, largest component, and every air space inside it, lungs that a
    crop cut open among them. MR: what is brighter than the noise, closed and filled. All ones when
    nothing sensible is found (the caller loses speed, not correctness).
    """
    # Coarse is enough for a mask, and fine CT would take long: at most every 2.5 mm is looked at.
    steps = [max(1, int(2.5 / s)) for s in reversed(volume.grid.spacing)]
    coarse = volume.array[tuple(slice(None, None, step) for step in steps)]
    mask = _coarse_body(coarse, modality)
    for axis, step in enumerate(steps):
        mask = mask.repeat(step, axis=axis)
    return mask[tuple(slice(0, n) for n in volume.array.shape)]


def _coarse_body(array: np.ndarray, modality: str) -> np.ndarray:
    if modality == "ct":
        tissue = array > TISSUE_HU
    else:
        smooth = ndimage.gaussian_filter(array, 1.0)
        low, high = float(smooth.min()), float(np.percentile(smooth, 98))
        tissue = smooth > low + 0.08 * (high - low)
    # Enough to cut off the table, and no more: a thin chest wall would be cut through as well.
    tissue = _largest_component(_beyond_border(ndimage.binary_opening, tissue, 1))
    if tissue.mean() < 0.02:
        return np.ones(array.shape, dtype=bool)
    if modality == "ct":
        tissue |= _enclosed_air(array, tissue)
    else:
        tissue = _beyond_border(ndimage.binary_closing, tissue, 3)
    return np.stack([ndimage.binary_fill_holes(slice_) for slice_ in tissue])


def _beyond_border(
    operation: Callable[..., np.ndarray], mask: np.ndarray, iterations: int
) -> np.ndarray:
    """Opening or closing of a mask that goes on beyond the image: scipy takes nothing there, which
    would wear off the body in the first and last slices."""
    padded = operation(np.pad(mask, iterations, mode="edge"), iterations=iterations)
    return padded[(slice(iterations, -iterations),) * 3]


def _largest_component(mask: np.ndarray) -> np.ndarray:
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels == sizes.argmax()


def _enclosed_air(array: np.ndarray, tissue: np.ndarray) -> np.ndarray:
    """Air that is not around the patient: components off the border, and lung cut by a crop."""
    labels, count = ndimage.label(_beyond_border(ndimage.binary_opening, ~tissue, 1))
    if count == 0:
        return np.zeros_like(tissue)
    borders = np.concatenate(
        [np.unique(labels[:, face]) for face in (0, -1)]
        + [np.unique(labels[:, :, face]) for face in (0, -1)]
    )
    outside = []
    for label in set(borders.tolist()) - {0}:
        if np.median(array[labels == label]) < OUTSIDE_AIR_HU:
            outside.append(label)
    return (labels > 0) & ~np.isin(labels, outside)


def working_grid(
    fixed: Grid, mask: np.ndarray, spacing: float, margin: float, multiple: int = 16
) -> Grid:
    """The isotropic grid on which the pair is registered: around the mask, axes near L, P, S.

    ``spacing`` and ``margin`` in mm. The axes are the fixed image's own, reordered so that slices
    are as axial as possible; sizes are multiples of ``multiple``: every pooling divides them.
    """
    corners = _mask_corners(fixed, mask)
    axial = _closest_to_axial(fixed)
    local = corners @ axial
    low, high = local.min(axis=0) - margin, local.max(axis=0) + margin
    # Never beyond the image itself (plus what rounding to multiples adds).
    image = fixed.corners() @ axial
    low, high = np.maximum(low, image.min(axis=0)), np.minimum(high, image.max(axis=0))
    template = Grid((1, 1, 1), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), tuple(axial.ravel().tolist()))
    return template.covering_box(np.stack((low, high)) @ axial.T, spacing, multiple)


def _mask_corners(grid: Grid, mask: np.ndarray) -> np.ndarray:
    """The eight outer corners of a mask's bounding box, LPS mm."""
    ranges = []
    for axis in range(3):
        hit = np.flatnonzero(mask.any(axis=tuple(i for i in range(3) if i != 2 - axis)))
        ranges.append((hit[0] - 0.5, hit[-1] + 0.5))
    index = np.array([(x, y, z) for x in ranges[0] for y in ranges[1] for z in ranges[2]])
    return grid.to_physical(index)


def _closest_to_axial(grid: Grid) -> np.ndarray:
    """The grid's direction columns, reordered and flipped to be nearest to L, P, S."""
    direction = grid.direction_matrix
    columns = []
    remaining = [0, 1, 2]
    for axis in (2, 1, 0):  # the slice axis matters most
        best = max(remaining, key=lambda c: abs(direction[axis, c]))
        remaining.remove(best)
        columns.insert(0, direction[:, best] * (1.0 if direction[axis, best] >= 0 else -1.0))
    return np.stack(columns, axis=1)


def prepare_pair(
    fixed: Volume,
    moving: Volume,
    initial: np.ndarray,
    spacing: float,
    margin: float,
    modality: str,
    masks: tuple[np.ndarray, np.ndarray],
    multiple: int = 16,
) -> Prepared:
    """Resamples both images onto one working grid in the fixed frame.

    ``masks`` are the fixed and moving masks on their own grids (bool); the sizes of the grid are
    multiples of ``multiple`` voxels. Raises
    :class:`InputError` when the images do not overlap after the initial alignment.
    """
    grid = working_grid(fixed.grid, masks[0], spacing, margin, multiple)
    affine = affine_to_sitk(initial)
    images, bodies, insides = [], [], []
    for volume, mask, transform in ((fixed, masks[0], None), (moving, masks[1], affine)):
        normal = normalize_intensity(volume, modality)
        smooth = _antialias(normal, spacing)
        # Beyond its ends an image goes on as it ended: air there would draw an edge at each end of
        # the scan, and the ends of both images would attract each other.
        images.append(smooth.resampled(grid, transform, None).array)
        bodies.append(_resample_mask(mask, volume.grid, grid, transform))
        insides.append(_resample_mask(np.ones_like(mask), volume.grid, grid, transform))
    shared = np.count_nonzero(bodies[0] & bodies[1]) / max(np.count_nonzero(bodies[0]), 1)
    if shared < 0.05:
        raise InputError(
            f"The images overlap in only {100 * shared:.1f} % of the fixed body after the initial "
            "alignment; check that both show the same region, or give an initial transform."
        )
    tensors = [torch.from_numpy(a) for a in (*images, *bodies, *insides)]
    return Prepared(*tensors, grid, initial, modality)


def _antialias(volume: Volume, spacing: float) -> Volume:
    """Blurs along the axes that are finer than the working grid, so that resampling is sound."""
    sigma = []
    for own in reversed(volume.grid.spacing):
        ratio = spacing / own
        sigma.append(0.4 * np.sqrt(ratio**2 - 1) if ratio > 1.05 else 0.0)
    if not any(sigma):
        return volume
    return Volume(ndimage.gaussian_filter(volume.array, sigma, mode="nearest"), volume.grid)


def _resample_mask(mask: np.ndarray, own: Grid, grid: Grid, transform: object) -> np.ndarray:
    resampled = Volume(mask.astype(np.uint8), own).resampled(grid, transform, 0, labels=True)
    return resampled.array > 0
