"""MIND-SSC: the modality independent neighborhood descriptor with self-similarity context.

Heinrich, Jenkinson, Papiez, Brady and Schnabel, "Towards realtime multimodal fusion for
image-guided interventions using self-similarities", MICCAI 2013.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F

#: The six-neighborhood, offsets in z, y, x.
_NEIGHBORS = ((-1, 0, 0), (0, 0, -1), (0, -1, 0), (0, 0, 1), (1, 0, 0), (0, 1, 0))

#: The 12 unordered pairs of neighbors at squared distance 2.
PAIRS = tuple(
    (a, b)
    for i, a in enumerate(_NEIGHBORS)
    for b in _NEIGHBORS[:i]
    if sum((p - q) ** 2 for p, q in zip(a, b, strict=True)) == 2
)

_Offset = tuple[int, int, int]


def _plan() -> list[tuple[_Offset, _Offset]]:
    """For each channel: the difference direction, and where its distance map is read.

    The patch distance between x+a and x+b is the map of direction v = b - a, read at x + a; v and
    -v give the same map, so six maps serve the twelve channels.
    """
    plan = []
    for a, b in PAIRS:
        v = tuple(q - p for p, q in zip(a, b, strict=True))
        negative = tuple(-k for k in v)
        plan.append((v, a) if v > negative else (negative, b))
    return plan


@torch.no_grad()
def mind_ssc(
    image: torch.Tensor,
    radius: int = 1,
    dilation: int = 2,
    pool: int = 1,
    check: Callable[[], None] = lambda: None,
) -> torch.Tensor:
    """MIND-SSC descriptors of an image (Z, Y, X), averaged over blocks of ``pool``^3 voxels.

    ``radius`` of the box patch and ``dilation`` of the neighborhood are in voxels. Returns
    (12, Z/pool, Y/pool, X/pool) float32 with values in (0, 1]; a remainder at the far end is
    dropped. Works slab by slab: the full-resolution 12-channel volume never exists. ``check`` is
    called between slabs and may raise to cancel.
    """
    size = [n // pool * pool for n in image.shape]
    image = image[: size[0], : size[1], : size[2]]
    out = image.new_empty((12, *(n // pool for n in size)), dtype=torch.float32)
    for start, channels in mind_slabs(image, radius, dilation, pool, check):
        if pool > 1:
            channels = F.avg_pool3d(channels[None], pool)[0]
        out[:, start // pool : start // pool + channels.shape[1]] = channels
    return out


def mind_slabs(
    image: torch.Tensor,
    radius: int = 1,
    dilation: int = 2,
    multiple: int = 1,
    check: Callable[[], None] = lambda: None,
) -> Iterator[tuple[int, torch.Tensor]]:
    """The descriptors of :func:`mind_ssc` at full resolution, slab by slab: the first slice, and
    (12, slices, Y, X) float32. ``multiple``: of this many slices each slab, but for the last."""
    margin = 2 * dilation + radius
    padded = F.pad(image[None, None].float(), (margin,) * 6, mode="replicate")[0, 0]
    depth = image.shape[0]
    slab = max(multiple, 16 // multiple * multiple)
    starts = range(0, depth, slab)

    def distances(start: int) -> tuple[list[torch.Tensor], torch.Tensor]:
        check()
        stop = min(start + slab, depth)
        return _distances(padded[start : stop + 2 * margin], radius, dilation)

    # All slabs count for the clamp: a part of them may be empty, and would clamp all to nothing.
    total = sum(_total(*distances(start)) for start in starts)
    mean_variance = total / (12 * math.prod(image.shape))
    for start in starts:
        parts, least = distances(start)
        d = least.new_empty((12, *least.shape))
        for channel, part in zip(d, parts, strict=True):
            torch.sub(part, least, out=channel)
        variance = d.mean(dim=0).clamp_(1e-3 * mean_variance, 1e3 * mean_variance)
        yield start, d.mul_(variance.clamp_min_(1e-12).reciprocal_().neg_()).exp_()


def _total(parts: list[torch.Tensor], least: torch.Tensor) -> float:
    """The sum of the distances of all channels and voxels of a slab, the least taken off."""
    return sum(float(part.sum()) for part in parts) - 12 * float(least.sum())


def _distances(
    padded: torch.Tensor, radius: int, dilation: int
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Patch distances of the 12 channels, and their minimum, for a slab with its margin.

    They are sums over the patch, not means: only their ratios count.
    """
    margin = 2 * dilation + radius
    shape = [n - 2 * margin for n in padded.shape]
    plan = _plan()
    maps = {}
    for v in {v for v, _ in plan}:
        # (I(y) - I(y + v))^2 for y within `dilation + radius` of the slab, then the box sum
        core = [slice(dilation, n - dilation) for n in padded.shape]
        moved = [
            slice(dilation + dilation * k, n - dilation + dilation * k)
            for k, n in zip(v, padded.shape, strict=True)
        ]
        maps[v] = _box_sum((padded[tuple(core)] - padded[tuple(moved)]).square_(), radius)
    parts = []
    for v, base in plan:
        start = [margin - dilation - radius + dilation * k for k in base]
        parts.append(maps[v][tuple(slice(s, s + n) for s, n in zip(start, shape, strict=True))])
    least = parts[0]
    for part in parts[1:]:
        least = torch.minimum(least, part)
    return parts, least


def _box_sum(values: torch.Tensor, radius: int) -> torch.Tensor:
    """Sum over (2 radius + 1)^3 voxels; each axis gets shorter by 2 radius."""
    for dim in range(3):
        n = values.shape[dim] - 2 * radius
        total = values.narrow(dim, 0, n) + values.narrow(dim, 1, n)
        for k in range(2, 2 * radius + 1):
            total.add_(values.narrow(dim, k, n))
        values = total
    return values
