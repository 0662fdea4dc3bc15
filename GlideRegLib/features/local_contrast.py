"""Locally normalized intensity: its sum of squared differences is the local correlation.

For z = (I - mean) / deviation over a neighborhood, mean (z_F - z_M)^2 = 2 (1 - NCC) (Avants et al.,
"Symmetric diffeomorphic image registration with cross-correlation", MedIA 2008, minimize the same
in another form). MIND sees edges; this channel also sees which side of an edge is the brighter one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..optimize.warping import box_filter, pool

#: Passes of the 3^3 mean filter that make the neighborhood: about a Gaussian of 2 voxels.
_PASSES = 6
#: Below this correlation of two aligned images, equal tissue is not equally bright in them.
LEAST_CORRELATION = 0.3


@torch.no_grad()
def local_contrast(
    image: torch.Tensor,
    floor: float,
    pooling: int = 1,
    check: Callable[[], None] = lambda: None,
) -> torch.Tensor:
    """(I - mean) / sqrt(variance + floor^2) of an image (Z, Y, X), mean over pooling^3 voxels.

    ``floor``: deviation that is taken for noise, in units of the image (HU; MR: thousandths of the
    full range). Returns (1, Z/pooling, Y/pooling, X/pooling) float32 without a unit.
    """
    values = image.float()
    mean = box_filter(values, _PASSES)
    check()
    contrast = values - mean
    del mean
    # The variance about the mean at each voxel: the same scale without the difference of squares.
    variance = box_filter(contrast.square(), _PASSES)
    check()
    contrast.mul_(variance.add_(floor**2).rsqrt_())
    return pool(contrast[None], pooling)


def correlation(first: torch.Tensor, second: torch.Tensor, weight: torch.Tensor) -> float:
    """Weighted correlation coefficient of two images (Z, Y, X), -1 to 1; 0 without structure."""
    total = weight.sum().clamp_min(1e-6)
    a, b = (v - (v * weight).sum() / total for v in (first, second))
    power = (a.square() * weight).sum() * (b.square() * weight).sum()
    return float((a * b * weight).sum() / power.sqrt()) if float(power) > 0 else 0.0
