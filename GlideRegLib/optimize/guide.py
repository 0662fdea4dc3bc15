"""Landmark pairs in the convex stage: a field through them to start from, and what holds to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree

from ..constraints import LandmarkConstraints
from ..features.pyramid import FeaturePyramid
from ..geometry import Grid

#: Cost of one search step of ``_STEP_MM`` away from the field at a landmark, in the units of the
#: smoothed SSD: noise moves less, and clear structure still wins (measured on hard phantoms).
PULL = 0.1
_STEP_MM = 8.0
#: Distance from the nearest landmark in mm over which the pull fades (Gaussian).
REACH_MM = 60.0
#: Pooling of the grid on which the field is drawn: it is smooth.
_POOLING = 8


@dataclass(frozen=True)
class Guide:
    """``start`` is a displacement (3, Z, Y, X) through the pairs, in voxels of the coarse grid."""

    start: torch.Tensor
    constraints: LandmarkConstraints

    @classmethod
    def through(cls, pyramid: FeaturePyramid) -> Guide:
        """The guide of a pyramid that has landmarks."""
        grid = pyramid.grid_at(_POOLING)
        spline = torch.from_numpy(pyramid.landmarks.spline(grid)).to(pyramid.device)
        return cls(grid.mm_to_voxels(spline), pyramid.landmarks)

    def pull(self, grid: Grid, device: str | torch.device) -> torch.Tensor:
        """What a step away from the field costs on a level's grid: (Z, Y, X), per voxel^2."""
        trusted = self.constraints.fixed[~self.constraints.suspects]
        index = np.argwhere(np.ones(grid.shape, bool))[:, ::-1].astype(float)
        distance = cKDTree(trusted).query(grid.to_physical(index))[0].reshape(grid.shape)
        weight = PULL * (grid.spacing[0] / _STEP_MM) ** 2 * np.exp(-((distance / REACH_MM) ** 2))
        return torch.as_tensor(weight, dtype=torch.float32, device=device)
