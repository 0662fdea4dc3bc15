"""Compartments of the body that slide along each other: given as labels, or the lungs of a CT."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

from .errors import InputError
from .prepare import TISSUE_HU, Prepared
from .volume import Volume

#: Vessels and fissures up to about twice this wide belong to the lungs, mm.
_CLOSING_MM = 12.0
#: Air spaces smaller than this share of the largest one are bowel, stomach or airway.
_SMALLEST_SHARE = 0.1


def find_compartments(
    prepared: Prepared, labels: Volume | None, lungs_slide: bool
) -> torch.Tensor | None:
    """Integer labels (Z, Y, X) on the working grid, or None when nothing is to slide.

    ``labels`` is a label map in the fixed frame, on any grid (0 outside of it); without one,
    ``lungs_slide`` finds the lungs of a CT. Raises :class:`InputError` for a map that has only one
    value there.
    """
    if labels is not None:
        found = labels.resampled(prepared.grid, None, 0, labels=True).array.astype(np.int32)
        seen = found[prepared.fixed_inside.cpu().numpy()]
        if seen.min() == seen.max():
            raise InputError(
                "The sliding mask has only one value where the images are registered; it needs at "
                "least two labels (background counts), in the frame of the fixed image."
            )
    elif lungs_slide and prepared.modality == "ct":
        found = lung_mask(prepared).astype(np.int32)
    else:
        return None
    return torch.from_numpy(found).to(prepared.fixed.device)


def lung_mask(prepared: Prepared) -> np.ndarray:
    """The lungs of the fixed CT with their vessels: bool (Z, Y, X) on the working grid."""
    inside = (prepared.fixed_mask & prepared.fixed_inside).cpu().numpy()
    air = (prepared.fixed.cpu().numpy() < TISSUE_HU) & inside
    air = ndimage.binary_opening(air[::2, ::2, ::2])
    parts, count = ndimage.label(air)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    lungs = np.isin(parts, np.flatnonzero(sizes > _SMALLEST_SHARE * max(sizes.max(), 1)))
    lungs &= air
    times = max(1, round(_CLOSING_MM / (2 * prepared.grid.spacing[0])))
    padded = np.pad(lungs, times + 1, mode="edge")
    closed = ndimage.binary_closing(padded, iterations=times)
    closed = closed[(slice(times + 1, -times - 1),) * 3]
    filled = np.stack([ndimage.binary_fill_holes(plane) for plane in closed])
    return filled.repeat(2, axis=0).repeat(2, axis=1).repeat(2, axis=2)
