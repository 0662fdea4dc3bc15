"""Trilinear look-ups of many channels at displaced voxels: the gather of the solver."""

from __future__ import annotations

import torch
import torch.nn.functional as F


class Table:
    """A volume (C, Z, Y, X) as a table of channel vectors, for trilinear look-ups."""

    def __init__(self, values: torch.Tensor) -> None:
        self._rows = values.reshape(values.shape[0], -1).T.contiguous()

    def sample(self, lookup: Lookup) -> torch.Tensor:
        """Interpolated values, float32 (C, z, Y, X) of the look-up's slices.

        ``embedding_bag`` is several times as fast as ``grid_sample``.
        """
        found = F.embedding_bag(
            lookup.rows,
            self._rows,
            per_sample_weights=lookup.weights.to(self._rows.dtype),
            mode="sum",
        )
        shape = (found.shape[1], *lookup.shape)
        return found.T.to(torch.float32, memory_format=torch.contiguous_format).reshape(shape)


class Lookup:
    """The eight neighbors and weights of x + u(x) for the slices that start at ``first``.

    ``displacement`` (3, z, Y, X) in voxels of a grid of ``shape`` (Z, Y, X). ``inside`` (z, Y, X)
    is 1 where x + u(x) lies within the outer faces of the grid, else 0.
    """

    def __init__(self, displacement: torch.Tensor, first: int, shape: tuple[int, ...]) -> None:
        device = displacement.device
        self.shape = tuple(displacement.shape[1:])
        axes = [torch.arange(n, dtype=torch.float32, device=device) for n in self.shape]
        axes[0] += first
        strides = (shape[1] * shape[2], shape[2], 1)
        row, parts, inside = None, [], None
        for k in range(3):  # array axes z, y, x; the components are x, y, z
            view = [-1 if k == axis else 1 for axis in range(3)]
            position = displacement[2 - k] + axes[k].view(view)
            within = (position >= -0.5) & (position <= shape[k] - 0.5)
            inside = within if inside is None else inside & within
            position = position.clamp_(0, shape[k] - 1)
            lower = position.to(torch.int32).clamp_(max=max(shape[k] - 2, 0))
            upper_share = (position - lower).reshape(-1, 1)
            parts.append(torch.cat((1 - upper_share, upper_share), dim=1))
            offset = lower * strides[k]
            row = offset if row is None else row.add_(offset)
        self.inside = inside.float()
        steps = [
            z * strides[0] * (shape[0] > 1) + y * strides[1] * (shape[1] > 1) + x * (shape[2] > 1)
            for z in (0, 1)
            for y in (0, 1)
            for x in (0, 1)
        ]
        self.rows = row.view(-1, 1) + torch.tensor(steps, dtype=torch.int32, device=device)
        plane = (parts[1][:, :, None] * parts[2][:, None, :]).view(-1, 1, 4)
        self.weights = (parts[0][:, :, None] * plane).view(-1, 8)
