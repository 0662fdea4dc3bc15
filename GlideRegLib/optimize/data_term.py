"""The data term's share of the normal equations, summed up slab by slab.

With g the mean gradient of the fixed and the warped features and r their difference, each voxel
gets A = sum_c g g^T and b = sum_c g r. The channels are added one after the other, on slabs that
the processor's cache holds: nothing with C channels is kept for the whole volume.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from .energy import FeaturePair
from .lookup import Lookup, Table
from .warping import pool, resize_displacement, warp

#: The six entries of a symmetric 3x3 matrix, components x, y, z.
UPPER = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
#: Voxels of a slab: a dozen such arrays fit into a processor's cache; a GPU wants long ones.
_SLAB_VOXELS = {"cpu": 2**17, "cuda": 2**23}


@dataclass(frozen=True)
class _Slab:
    """Slices ``start`` to ``stop``; ``warped`` and ``trust`` have ``below`` more slices before and
    ``above`` more behind them (0 or 1: none at the ends of the volume)."""

    start: int
    stop: int
    below: int
    above: int
    warped: list[torch.Tensor]
    trust: torch.Tensor

    @property
    def inner(self) -> slice:
        return slice(self.below, self.below + self.stop - self.start)

    @property
    def outer(self) -> slice:
        return slice(self.start - self.below, self.stop + self.above)


class DataTerm:
    """The features of one level, ready to be compared at any displacement."""

    def __init__(
        self,
        pairs: list[FeaturePair],
        weight: torch.Tensor | None,
        moving_weight: torch.Tensor | None,
        finer: int,
        check: Callable[[], None],
    ) -> None:
        """As in :class:`~.gauss_newton.GaussNewton`, which describes them."""
        self.shape = tuple(pairs[0].fixed.shape[1:])
        self._finer = finer
        self._check = check
        self._weight = None if weight is None or bool((weight == 1).all()) else weight
        self._groups = [_prepared(pair) for pair in pairs]
        self._moving_weight = None
        if moving_weight is not None:
            self._moving_weight = pool(moving_weight[None], finer)

    def replace(self, group: int, pair: FeaturePair) -> None:
        """Exchanges the features of one group (after the reduction was updated)."""
        self._groups[group] = _prepared(pair)

    def sums(self, displacement: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A (6, Z, Y, X) and b (3, Z, Y, X) on the field's grid at a displacement on it (3, Z, Y,
        X), all in its voxels."""
        matrix = displacement.new_zeros((6, *displacement.shape[1:]))
        right = displacement.new_zeros((3, *displacement.shape[1:]))
        on_features = displacement
        if self._finer > 1:
            on_features = resize_displacement(displacement, self.shape)
        for slab in self._slabs(on_features):
            rows = slice(slab.start // self._finer, slab.stop // self._finer)
            products = displacement.new_zeros((9, slab.stop - slab.start, *self.shape[1:]))
            for (alpha, fixed, _), warped in zip(self._groups, slab.warped, strict=True):
                _add_products(products, warped, fixed[:, slab.outer], slab, alpha)
            products.mul_(slab.trust[slab.inner])
            # A step of one field voxel is `finer` voxels here; each field voxel gets the mean.
            products = pool(products, self._finer)
            torch.mul(products[:6], self._finer**2, out=matrix[:, rows])
            torch.mul(products[6:], self._finer, out=right[:, rows])
        if self._moving_weight is not None:
            trust = warp(self._moving_weight, displacement)
            matrix.mul_(trust)
            right.mul_(trust)
        return matrix, right

    def _slabs(self, displacement: torch.Tensor) -> Iterator[_Slab]:
        """The slabs in order. Each voxel is looked up once: the two last slices of a slab, which
        the next one needs for its differences along z, are handed on."""
        depth, count = self.shape[0], self._slices_at_once(displacement.device.type)
        reached, kept = 0, None
        for start in range(0, depth, count):
            self._check()
            stop = min(start + count, depth)
            end = min(stop + 1, depth)
            if end > reached:
                kept = self._look_up(displacement[:, reached:end], reached, kept)
                reached = end
            *warped, trust = kept
            yield _Slab(start, stop, min(start, 1), end - stop, warped, trust[0])
            kept = [values[:, -2:] for values in kept]

    def _look_up(
        self, displacement: torch.Tensor, first: int, before: list[torch.Tensor] | None
    ) -> list[torch.Tensor]:
        """Warped groups and trust, each (C, z, Y, X), of the slices from ``first`` on, behind what
        was there ``before``."""
        lookup = Lookup(displacement, first, self.shape)
        trust = lookup.inside[None]
        if self._weight is not None:
            trust = trust * self._weight[first : first + displacement.shape[1]]
        tables = [table for _, _, table in self._groups]
        if before is None:
            return [table.sample(lookup) for table in tables] + [trust]
        found = [table.sample(lookup, old) for table, old in zip(tables, before, strict=False)]
        return [*found, torch.cat((before[-1], trust), dim=1)]

    def _slices_at_once(self, device: str) -> int:
        wanted = _SLAB_VOXELS[device] // (self.shape[1] * self.shape[2])
        return max(wanted // self._finer, 1) * self._finer


def _prepared(pair: FeaturePair) -> tuple[float, torch.Tensor, Table]:
    return pair.weight, pair.fixed.contiguous(), Table(pair.moving)


def _add_products(
    sums: torch.Tensor, warped: torch.Tensor, fixed: torch.Tensor, slab: _Slab, alpha: float
) -> None:
    """Adds the products of gradients (6) and of gradient and residual (3), channel by channel.

    ``sums`` (9, z, Y, X). The slopes are four times the mean gradients: twice by the sum of both
    images, twice by the difference over two voxels.
    """
    slopes = [torch.empty_like(sums[0]) for _ in range(3)]
    for moving, target in zip(warped, fixed, strict=True):
        target = target.float()
        both = moving + target
        residual = moving[slab.inner] - target[slab.inner]
        here = both[slab.inner]
        _steps_along_rows(here, 1, slopes[0])
        _steps_along_rows(here, here.shape[-1], slopes[1])
        _steps_between_slices(both, slab.below, slab.above, slopes[2])
        for entry, (i, j) in enumerate(UPPER):
            sums[entry].addcmul_(slopes[i], slopes[j], value=alpha / 16)
        for i in range(3):
            sums[6 + i].addcmul_(slopes[i], residual, value=alpha / 4)


def _steps_along_rows(values: torch.Tensor, stride: int, out: torch.Tensor) -> None:
    """values(x + 1) - values(x - 1) along the last axis (``stride`` 1) or the one before it.

    Neighbors in memory are subtracted, whatever row they belong to; the ends of the rows are then
    put right: twice the one-sided difference.
    """
    flat, dim = values.view(-1), -1 if stride == 1 else -2
    inner = flat.numel() - 2 * stride
    if inner > 0:
        result = out.view(-1).narrow(0, stride, inner)
        torch.sub(flat.narrow(0, 2 * stride, inner), flat.narrow(0, 0, inner), out=result)
    n = values.shape[dim]
    for face, low in ((0, 0), (n - 1, n - 2)):
        if n == 1:
            out.zero_()
            break
        step = values.select(dim, low + 1) - values.select(dim, low)
        out.select(dim, face).copy_(step.mul_(2))


def _steps_between_slices(values: torch.Tensor, below: int, above: int, out: torch.Tensor) -> None:
    """values(z + 1) - values(z - 1); at the ends of the volume twice the one-sided difference."""
    first, last = 1 - below, out.shape[0] - (1 - above)
    if last > first:
        low = first + below - 1
        count = last - first
        torch.sub(values[low + 2 : low + 2 + count], values[low : low + count], out=out[first:last])
    n = values.shape[0]
    for missing, face, low in ((not below, 0, 0), (not above, -1, n - 2)):
        if missing and n > 1:
            torch.sub(values[low + 1], values[low], out=out[face]).mul_(2)
        elif missing:
            out[face].zero_()
