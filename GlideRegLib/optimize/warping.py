"""Sampling, composing and smoothing displacements in voxel units.

Frames: everything is index space of one grid; displacements (3, Z, Y, X), components x, y, z.
Sampling is trilinear with align_corners=False semantics and replicated borders.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from ..geometry import index_tensor, normalized_coordinates

#: Displacements of neighbors below this (voxels) differ by less than their distance.
_SHORT = 0.4


def warp(values: torch.Tensor, displacement: torch.Tensor) -> torch.Tensor:
    """values(x + u(x)): values (C, Z, Y, X), u (3, z, y, x) in voxels of ``values``.

    Both must cover the same grid; returns (C, z, y, x).
    """
    index = index_tensor(tuple(displacement.shape[1:]), displacement.device) + displacement
    coordinates = normalized_coordinates(index, tuple(values.shape[1:]))
    return F.grid_sample(
        values[None],
        coordinates[None].to(values.dtype),
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )[0]


def compose(later: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
    """(Id + later) after (Id + first): x -> x + first(x) + later(x + first(x))."""
    return first + warp(later, first)


def exponentiate(velocity: torch.Tensor, squarings: int | None = None) -> torch.Tensor:
    """exp of a stationary velocity by scaling and squaring: a displacement without folds.

    Without ``squarings`` it is halved until it is shorter than ``_SHORT`` everywhere: such a
    displacement cannot swap two neighbors, and neither can what it is composed to.
    """
    if squarings is None:
        longest = float(velocity.square().sum(dim=0).amax().sqrt())
        squarings = max(math.ceil(math.log2(max(longest, 1e-9) / _SHORT)), 0)
    displacement = velocity / 2**squarings
    for _ in range(squarings):
        displacement = compose(displacement, displacement)
    return displacement


def resize_displacement(displacement: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """The same motion on another grid of equal extent, in voxels of that grid."""
    old = displacement.shape[1:]
    if all(new == 2 * n for new, n in zip(shape, old, strict=True)):
        return doubled(displacement).mul_(2)
    factors = [new / n for new, n in zip(shape, old, strict=True)][::-1]
    scale = torch.tensor(factors, dtype=displacement.dtype, device=displacement.device)
    resized = F.interpolate(
        displacement[None], size=tuple(shape), mode="trilinear", align_corners=False
    )[0]
    return resized * scale.view(3, 1, 1, 1)


def pool(values: torch.Tensor, factor: int) -> torch.Tensor:
    """Mean over blocks of ``factor``^3 voxels: (C, Z, Y, X) -> (C, Z/f, Y/f, X/f)."""
    if factor == 2 and not any(n % 2 for n in values.shape[-3:]):
        return _mean_by_two(values)
    return values if factor == 1 else F.avg_pool3d(values[None], factor, stride=factor)[0]


def _mean_by_two(values: torch.Tensor) -> torch.Tensor:
    """The same for blocks of 2^3 voxels, even sizes: by slices several times as fast."""
    for dim in (-3, -2, -1):
        first, second = values.unflatten(dim, (values.shape[dim] // 2, 2)).unbind(dim)
        values = first + second
    return values.mul_(0.125)


def doubled(values: torch.Tensor) -> torch.Tensor:
    """Trilinear interpolation (C, Z, Y, X) on the grid twice as fine, borders replicated.

    Equals ``interpolate`` with align_corners=False; by slices it is several times as fast.
    """
    for dim in (-1, -2, -3):
        n = values.shape[dim]
        fine = values.new_empty([2 * m if k == dim + 4 else m for k, m in enumerate(values.shape)])
        split = fine.unflatten(dim, (n, 2))
        quarter = values * 0.25
        for side, (own, other, edge) in enumerate(((1, 0, 0), (0, 1, n - 1))):
            half = split.select(dim, side)
            torch.mul(values, 0.75, out=half)
            half.narrow(dim, own, n - 1).add_(quarter.narrow(dim, other, n - 1))
            half.select(dim, edge).add_(quarter.select(dim, edge))
        values = fine
    return values


def summed_by_two(values: torch.Tensor) -> torch.Tensor:
    """The transpose of :func:`doubled`: what each coarse node gets from the fine ones."""
    for dim in (-3, -2, -1):
        n = values.shape[dim] // 2
        even, odd = values.unflatten(dim, (n, 2)).unbind(dim)
        out = (even + odd).mul_(0.75)
        out.narrow(dim, 1, n - 1).add_(odd.narrow(dim, 0, n - 1), alpha=0.25)
        out.narrow(dim, 0, n - 1).add_(even.narrow(dim, 1, n - 1), alpha=0.25)
        out.select(dim, 0).add_(even.select(dim, 0), alpha=0.25)
        out.select(dim, -1).add_(odd.select(dim, -1), alpha=0.25)
        values = out
    return values


def box_filter(values: torch.Tensor, times: int = 1) -> torch.Tensor:
    """A 3^3 mean filter over the last three axes, applied ``times`` times, replicated borders.

    Separable additions: about ten times faster than ``avg_pool3d`` on a CPU.
    """
    dims = [dim for dim in (-3, -2, -1) if values.shape[dim] > 1]
    for _ in range(times):
        for dim in dims:
            values = _sum_of_three(values, values.dim() + dim)
        if dims:
            values.mul_(3.0 ** -len(dims))
    return values


def _sum_of_three(values: torch.Tensor, dim: int) -> torch.Tensor:
    """Each value and its two neighbors along an axis of at least two, borders replicated."""
    n = values.shape[dim]
    out = torch.empty_like(values)
    inner = out.narrow(dim, 1, n - 2)
    torch.add(values.narrow(dim, 0, n - 2), values.narrow(dim, 1, n - 2), out=inner)
    inner.add_(values.narrow(dim, 2, n - 2))
    for edge, neighbor in ((0, 1), (n - 1, n - 2)):
        face = out.narrow(dim, edge, 1)
        face.copy_(values.narrow(dim, edge, 1)).mul_(2).add_(values.narrow(dim, neighbor, 1))
    return out


def symmetrize(
    forward: torch.Tensor, backward: torch.Tensor, steps: int = 15
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pulls a forward and a backward displacement towards being inverses of each other.

    Each step halves the difference: a <- (a - b(x + a)) / 2, and the same for b (Heinrich 2014).
    """
    for _ in range(steps):
        forward, backward = (
            0.5 * (forward - warp(backward, forward)),
            0.5 * (backward - warp(forward, backward)),
        )
    return forward, backward
