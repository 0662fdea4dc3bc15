"""The landmark term of the energy: pairs of points that pull softly, in voxels of one grid.

E_points(u) = sum_k w rho(|p_k + u(p_k) - q_k|), with rho(r) = c^2 r^2 / (c^2 + r^2) (Geman and
McClure 1985): quadratic near its point, bounded far from it, so that one wrong pair cannot tear
the field. u(p) is trilinear; like the data term of the normal equations it is a sum, no mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..constraints import LandmarkConstraints
from ..geometry import Grid

#: Energy of a pair that is one sigma off, in the units of the data term (summed over voxels).
STRENGTH = 1.0
#: Distance in sigmas at which a pair begins to lose its say.
ROBUST_SIGMAS = 5.0


@dataclass(frozen=True)
class PointEquations:
    """What the pairs add to the normal equations: matrices (N, 3, 3) at trilinear points.

    ``nodes`` (N, 8) are flat voxel numbers, ``shares`` (N, 8) their weights; ``right`` (3, N).
    """

    nodes: torch.Tensor
    shares: torch.Tensor
    matrices: torch.Tensor
    right: torch.Tensor

    def multiply_add(self, z: torch.Tensor, out: torch.Tensor) -> None:
        """out += B A B^T z, with z and out (3, Z, Y, X) and B the trilinear weights."""
        at_points = torch.einsum("ink,nk->in", z.view(3, -1)[:, self.nodes], self.shares)
        self._spread(torch.einsum("nij,jn->in", self.matrices, at_points), out)

    def subtract_right(self, out: torch.Tensor) -> None:
        """out -= B right: the term's descent direction."""
        self._spread(-self.right, out)

    def add_diagonal(self, out: torch.Tensor) -> None:
        """Adds the diagonal of B A B^T (3, Z, Y, X), for the preconditioner."""
        diagonal = self.matrices.diagonal(dim1=1, dim2=2).T
        values = diagonal[:, :, None] * self.shares.square()
        out.view(3, -1).index_add_(1, self.nodes.reshape(-1), values.reshape(3, -1))

    def _spread(self, at_points: torch.Tensor, out: torch.Tensor) -> None:
        values = (at_points[:, :, None] * self.shares).reshape(3, -1)
        out.view(3, -1).index_add_(1, self.nodes.reshape(-1), values)


class PointTerm:
    """The pairs on one level's grid."""

    def __init__(
        self, constraints: LandmarkConstraints, grid: Grid, sigma_mm: float, device: str = "cpu"
    ) -> None:
        """``constraints`` in the fixed frame (see ``LandmarkConstraints.after``), their fixed
        points within ``grid``, which is isotropic; ``sigma_mm``: how well they were placed."""
        ends = [torch.as_tensor(grid.to_index(p), dtype=torch.float32, device=device)
                for p in (constraints.fixed, constraints.moving)]  # fmt: skip
        self._target = (ends[1] - ends[0]).T
        in_voxels = sigma_mm / grid.spacing[0]
        self.weight = STRENGTH / in_voxels**2
        self._limit = (ROBUST_SIGMAS * in_voxels) ** 2
        self._here = _lookup(ends[0], grid.shape)
        half = 0.5 * torch.eye(3, device=device)
        self._around = [
            (_lookup(ends[0] + half[i], grid.shape), _lookup(ends[0] - half[i], grid.shape))
            for i in range(3)
        ]

    def residual(self, displacement: torch.Tensor) -> torch.Tensor:
        """p + u(p) - q in voxels: (3, N)."""
        return _sample(displacement, self._here) - self._target

    def energy(self, displacement: torch.Tensor) -> torch.Tensor:
        """The term's value at u (3, Z, Y, X), voxels; differentiable."""
        squared = self.residual(displacement).square().sum(dim=0)
        return self.weight * (self._limit * squared / (self._limit + squared)).sum()

    def lost(self, displacement: torch.Tensor) -> int:
        """How many pairs u leaves farther apart than where the robust term lets go of them."""
        return int((self.residual(displacement).square().sum(dim=0) > self._limit).sum())

    def linearize(self, displacement: torch.Tensor) -> PointEquations:
        """Half the gradient and the Gauss-Newton matrices for a step v with u <- u o exp(v).

        p goes to p + u(p) + (I + du/dx) v(p): the matrix I + du/dx is taken at the point.
        """
        residual = self.residual(displacement)
        columns = [
            _sample(displacement, ahead) - _sample(displacement, behind)
            for ahead, behind in self._around
        ]
        jacobian = torch.stack(columns, dim=-1).permute(1, 0, 2) + torch.eye(
            3, device=displacement.device
        )  # (N, component, axis)
        squared = residual.square().sum(dim=0)
        weight = self.weight * (self._limit / (self._limit + squared)).square()
        matrices = weight[:, None, None] * (jacobian.transpose(1, 2) @ jacobian)
        right = weight * torch.einsum("nij,in->jn", jacobian, residual)
        return PointEquations(*self._here, matrices, right)


def _lookup(index: torch.Tensor, shape: tuple[int, int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Flat numbers (N, 8) and trilinear weights (N, 8) of the nodes around continuous indices
    (N, 3), x y z order; beyond the outer voxels the border is replicated."""
    nodes = torch.zeros(len(index), 1, dtype=torch.long, device=index.device)
    shares = torch.ones(len(index), 1, device=index.device)
    strides = (1, shape[2], shape[1] * shape[2])
    for axis in range(3):
        last = shape[2 - axis] - 1
        position = index[:, axis].clamp(0, last)
        lower = position.floor().clamp_max(max(last - 1, 0))
        upper_share = (position - lower)[:, None]
        step = torch.tensor([0, min(1, last)], device=index.device)
        places = (lower.long()[:, None] + step) * strides[axis]
        nodes = (nodes[:, :, None] + places[:, None, :]).flatten(1)
        pair = torch.cat((1 - upper_share, upper_share), dim=1)
        shares = (shares[:, :, None] * pair[:, None, :]).flatten(1)
    return nodes, shares


def _sample(displacement: torch.Tensor, lookup: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    nodes, shares = lookup
    return (displacement.reshape(3, -1)[:, nodes] * shares).sum(dim=-1)
