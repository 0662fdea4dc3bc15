"""How much of each voxel is nodule: a small nodule lies to a third in voxels that it half fills.

A mask says which voxels belong to a nodule. Where its surface faces lung, the image says more: a
voxel half way between the HU of the nodule and of the lung is half nodule (the principle of Kuhnigk
et al., IEEE TMI 25:417, 2006). Where it faces other tissue (pleura, vessel) the mask alone decides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Below this difference between nodule and lung, HU, voxels are counted as they are.
MINIMUM_CONTRAST = 300.0
#: How far outside the mask the lung's own HU is looked up, mm.
_SHELL_MM = 6.0
#: Noise goes both ways: cutting it at 0 and 1 would add volume on one side only.
_NOISE_ROOM = 0.1
_CORE_VOXELS = 8


@dataclass(frozen=True)
class Occupancy:
    """Share of nodule in each voxel, float32 (Z, Y, X), about 0 to 1.

    ``inside_hu`` is the mean HU of the voxels that the surface does not touch (of the whole mask
    when there are fewer than 8). ``partial`` says whether partial volume was used; without enough
    contrast to lung the share is the mask itself.
    """

    share: np.ndarray
    inside_hu: float
    partial: bool


def nodule_occupancy(
    image: np.ndarray, mask: np.ndarray, spacing: tuple[float, float, float]
) -> Occupancy:
    """The share of nodule in each voxel of a crop around it.

    ``image`` in HU and ``mask`` (bool, not empty) are (Z, Y, X) with a margin of some mm around the
    mask; ``spacing`` is x, y, z in mm. Only the layer of voxels on either side of the mask's
    surface can differ from the mask, so a drawn border is followed to within a voxel.
    """
    from scipy import ndimage

    block = np.ones((3, 3, 3), bool)
    core = ndimage.binary_erosion(mask, block)
    inner = image[core] if core.sum() >= _CORE_VOXELS else image[mask]
    inside_hu = float(inner.mean())
    nodule = float(np.median(inner)) if core.sum() >= _CORE_VOXELS else np.percentile(inner, 85)
    lung = _lung_hu(image, mask, nodule, spacing)
    if lung is None or nodule - lung < MINIMUM_CONTRAST:
        return Occupancy(mask.astype(np.float32), inside_hu, False)
    filled = np.clip((image - lung) / (nodule - lung), -_NOISE_ROOM, 1 + _NOISE_ROOM)
    other = ~mask & (filled >= 0.5)
    # A voxel between nodule and other tissue belongs to both.
    near_mask = ndimage.convolve(mask.astype(np.float32), block.astype(np.float32))
    near_other = ndimage.convolve(other.astype(np.float32), block.astype(np.float32))
    outer = ~mask & ~other & (near_mask > 0.5)
    share = mask.astype(np.float32)
    surface = mask & ~core
    share[surface] = filled[surface]
    share[outer] = (filled * near_mask / np.maximum(near_mask + near_other, 1))[outer]
    return Occupancy(share, inside_hu, True)


def _lung_hu(
    image: np.ndarray, mask: np.ndarray, nodule: float, spacing: tuple[float, float, float]
) -> float | None:
    """Typical HU of the lung around the mask; None when there is nothing around it."""
    from scipy import ndimage

    distance = ndimage.distance_transform_edt(~mask, sampling=spacing[::-1])
    # The first voxels outside are mixtures.
    shell = image[(distance > 1.5 * min(spacing)) & (distance <= max(_SHELL_MM, 2 * max(spacing)))]
    if shell.size == 0:
        return None
    dark = shell[shell <= (nodule + np.percentile(shell, 10)) / 2]
    return float(np.median(dark)) if dark.size else None
