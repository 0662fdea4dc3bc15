"""The energy: weighted SSD of features plus bending, and the operators that its solvers share.

E(u) = mean_x w(x) sum_g a_g sum_c (M_c(x + u) - F_c(x))^2
       + lambda mean_x (|laplacian u|^2 + MEMBRANE |gradient u|^2),
with u in voxels of the grid (so lambda belongs to the grid's spacing) and a_g the weight of the
feature group g (global: alpha, local: beta).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .warping import warp

#: Share of the first derivative in the regularizer. Harmonic fields do not bend: without it, the
#: field grows without limit where no data hold it (outside the moving image's field of view).
MEMBRANE = 0.1

#: Largest diagonal entries of the regularizer's matrix in 3-D: of the squared graph Laplacian, and
#: of MEMBRANE times the Laplacian itself (preconditioner).
BENDING_DIAGONAL = 42.0
MEMBRANE_DIAGONAL = 6.0 * MEMBRANE

#: Share of the local energy by which a field that the global features guided must beat the one
#: without them. Less is noise: on the phantom such differences do not predict the true error.
MINIMUM_GAIN = 0.003


@dataclass(frozen=True)
class FeaturePair:
    """Fixed and moving features (C, Z, Y, X) on one grid, and their weight in the energy."""

    fixed: torch.Tensor
    moving: torch.Tensor
    weight: float = 1.0


def laplacian(values: torch.Tensor) -> torch.Tensor:
    """Graph Laplacian (positive semi-definite, free borders) over the last three axes."""
    out = values * 6.0
    for dim in (-3, -2, -1):
        n = values.shape[dim]
        out.narrow(dim, 1, n - 1).sub_(values.narrow(dim, 0, n - 1))
        out.narrow(dim, 0, n - 1).sub_(values.narrow(dim, 1, n - 1))
        for face in (0, n - 1):  # beyond a border the value goes on as it is
            out.select(dim, face).sub_(values.select(dim, face))
    return out


def roughness(values: torch.Tensor) -> torch.Tensor:
    """The gradient of half the regularizer, |laplacian u|^2 + MEMBRANE |gradient u|^2."""
    bent = laplacian(values)
    return laplacian(bent.add_(values, alpha=MEMBRANE))


def energy(
    pairs: list[FeaturePair],
    displacement: torch.Tensor,
    bending: float,
    weight: torch.Tensor | None = None,
) -> tuple[float, float]:
    """(data term, regularizer) of the energy at ``displacement`` (3, Z, Y, X) in voxels."""
    data = 0.0
    for pair in pairs:
        squared = (warp(pair.moving, displacement) - pair.fixed).square().sum(dim=0)
        data += pair.weight * float((squared if weight is None else squared * weight).mean())
    rough = (displacement * roughness(displacement)).sum(dim=0).mean()
    return data, bending * float(rough)
