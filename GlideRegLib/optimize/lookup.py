"""Trilinear look-ups of many channels at displaced voxels: the gather of the solver."""

from __future__ import annotations

import torch
import torch.nn.functional as F

#: Weights (N,) of the lower and the upper neighbor along an axis.
_Shares = tuple[torch.Tensor, torch.Tensor]


class Table:
    """A volume (C, Z, Y, X) as a table of channel vectors, for trilinear look-ups."""

    def __init__(self, values: torch.Tensor) -> None:
        self._channels = values.shape[0]
        rows = values.reshape(self._channels, -1).T
        if rows.dtype == torch.float32 and self._channels > 8:
            rows = F.pad(rows, (0, -self._channels % 8))  # odd lengths take three times as long
        self._rows = rows.contiguous()

    def sample(self, lookup: Lookup, before: torch.Tensor | None = None) -> torch.Tensor:
        """Interpolated values, float32 (C, z, Y, X) of the look-up's slices.

        With ``before`` (C, k, Y, X), slices that are known already, they are put behind those.
        ``embedding_bag`` is several times as fast as ``grid_sample``.
        """
        weights = lookup.weights.T.to(self._rows.dtype, memory_format=torch.contiguous_format)
        found = F.embedding_bag(lookup.rows, self._rows, per_sample_weights=weights, mode="sum")
        found = found[:, : self._channels]
        known = 0 if before is None else before.shape[1]
        depth, height, width = lookup.shape
        out = weights.new_empty((found.shape[1], known + depth, height, width), dtype=torch.float32)
        out[:, known:] = found.T.view(-1, depth, height, width)
        if before is not None:
            out[:, :known] = before
        return out


class Lookup:
    """The eight neighbors and weights of x + u(x) for the slices that start at ``first``.

    ``displacement`` (3, z, Y, X) in voxels of a grid of ``shape`` (Z, Y, X). ``inside`` (z, Y, X)
    is 1 where x + u(x) lies within the outer faces of the grid, else 0.
    """

    def __init__(self, displacement: torch.Tensor, first: int, shape: tuple[int, ...]) -> None:
        self.shape = tuple(displacement.shape[1:])
        strides = (shape[1] * shape[2], shape[2], 1)
        row, inside, shares = None, None, []
        for k in range(3):  # array axes z, y, x; the components are x, y, z
            axis = torch.arange(
                self.shape[k], dtype=displacement.dtype, device=displacement.device
            ).view([-1 if k == other else 1 for other in range(3)])
            position = displacement[2 - k] + (axis + first if k == 0 else axis)
            within = (position >= -0.5) & (position <= shape[k] - 0.5)
            inside = within if inside is None else inside.logical_and_(within)
            position.clamp_(0, shape[k] - 1)
            lower = position.to(torch.int32).clamp_(max=max(shape[k] - 2, 0))
            upper = position.sub_(lower).view(-1)
            shares.append((1 - upper, upper))
            offset = lower.mul_(strides[k])
            row = offset if row is None else row.add_(offset)
        self.inside = inside.to(displacement.dtype)
        self.rows = _corner_rows(row.view(-1), strides, shape)
        self.weights = _corner_weights(*shares)


def _corner_rows(
    first: torch.Tensor, strides: tuple[int, ...], shape: tuple[int, ...]
) -> torch.Tensor:
    """The rows (N, 8) of the eight corners, x fastest. An axis of one voxel has no next one."""
    z, y, x = (stride * (n > 1) for stride, n in zip(strides, shape, strict=True))
    steps = (0, x, y, y + x, z, z + x, z + y, z + y + x)
    rows = first.new_empty((len(first), 8))
    for column, step in enumerate(steps):
        torch.add(first, step, out=rows[:, column])
    return rows


def _corner_weights(z: _Shares, y: _Shares, x: _Shares) -> torch.Tensor:
    """The weights (8, N) of the corners in the same order. Whole columns are multiplied: the inner
    loops of outer products with two or four factors would cost several times as much."""
    weights = x[0].new_empty((8, len(x[0])))
    for j in range(2):
        for i in range(2):
            plane = y[j] * x[i]
            for k in range(2):
                torch.mul(z[k], plane, out=weights[4 * k + 2 * j + i])
    return weights
