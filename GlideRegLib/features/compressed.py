"""Local features of a pair at full resolution, in fewer channels than MIND and contrast have.

A third of the channels' directions hold less than a tenth of what they show. The squared
differences are next to those of the first principal components; the solver reads, stores and sums 9
of them instead of 13, at the same error of the registration (``Resources/benchmarks/profile.md``).
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..optimize.warping import pool
from ..settings import FeatureSettings
from .local_contrast import local_contrast
from .mind import mind_slabs, mind_ssc

#: Principal components that are kept.
COMPONENTS = 9
#: From coarser grids on, memory and time do not matter and all channels are kept.
_WHOLE_FROM = 4

_Pair = tuple[torch.Tensor, torch.Tensor]


@torch.no_grad()
def compressed_features(
    images: _Pair,
    settings: FeatureSettings,
    contrast_weight: float,
    check: Callable[[], None] = lambda: None,
) -> dict[int, _Pair]:
    """Fixed and moving features by pooling factor: 1 and 2 compressed, 4 with all channels.

    ``images`` (Z, Y, X), sizes divisible by 4; all features are (channels, Z, Y, X). Those at full
    resolution take the memory: the compressed ones are float16, and each lies in the order in which
    the solver reads it, so that it needs no copy. The others are float32.
    """
    components = _components(images, settings, contrast_weight)
    parts = [
        _one(image, settings, contrast_weight, components, channels_last, check)
        for image, channels_last in zip(images, (False, True), strict=True)
    ]
    return {factor: (parts[0][factor], parts[1][factor]) for factor in parts[0]}


def _components(
    images: _Pair, settings: FeatureSettings, contrast_weight: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean (channels,) of the features and their principal directions (COMPONENTS, channels),
    from the features of both images at half resolution: an eighth of the work, the same directions.
    """
    count, total, products = 0, 0.0, 0.0
    for image in images:
        small = pool(image[None], 2)[0]
        values = mind_ssc(small, settings.mind_radius, settings.mind_dilation)
        if contrast_weight > 0:
            contrast = local_contrast(small, settings.contrast_floor)
            values = torch.cat((values, contrast.mul_(contrast_weight**0.5)))
        values = values.flatten(1)
        count += values.shape[1]
        total = total + values.sum(dim=1).double()
        products = products + (values @ values.T).double()
    mean = total / count
    covariance = products / count - mean[:, None] * mean[None]
    return mean.float(), torch.linalg.eigh(covariance)[1][:, -COMPONENTS:].T.float().contiguous()


def _one(
    image: torch.Tensor,
    settings: FeatureSettings,
    contrast_weight: float,
    components: tuple[torch.Tensor, torch.Tensor],
    channels_last: bool,
    check: Callable[[], None],
) -> dict[int, torch.Tensor]:
    """The features of one image, slab by slab: all channels at full resolution never exist."""
    mean, basis = components
    offset = (basis @ mean)[:, None]
    shapes = {k: tuple(n // k for n in image.shape) for k in (1, 2, _WHOLE_FROM)}
    kept, whole = basis.shape
    out = {
        1: _empty(image, kept, shapes[1], channels_last),
        2: _empty(image, kept, shapes[2], channels_last),
        _WHOLE_FROM: image.new_empty((whole, *shapes[_WHOLE_FROM])),
    }
    contrast = None
    if contrast_weight > 0:
        contrast = local_contrast(image, settings.contrast_floor, 1, check)
        contrast.mul_(contrast_weight**0.5)
    radius, dilation = settings.mind_radius, settings.mind_dilation
    for start, values in mind_slabs(image, radius, dilation, _WHOLE_FROM, check):
        if contrast is not None:
            values = torch.cat((values, contrast[:, start : start + values.shape[1]]))
        for factor, target in out.items():
            if factor > 1:
                values = pool(values, 2)
            found = values
            if factor < _WHOLE_FROM:
                found = torch.addmm(offset, basis, values.flatten(1), beta=-1)
                found = found.view(kept, *values.shape[1:])
            first = start // factor
            target[:, first : first + values.shape[1]] = found
    return out


def _empty(
    image: torch.Tensor, channels: int, shape: tuple[int, ...], channels_last: bool
) -> torch.Tensor:
    """Room for (channels, Z, Y, X) in half precision; in memory the channels come first or last."""
    if channels_last:
        return image.new_empty((*shape, channels), dtype=torch.float16).permute(3, 0, 1, 2)
    return image.new_empty((channels, *shape), dtype=torch.float16)
