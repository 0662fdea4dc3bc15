"""Encoder features of a pair for the methods beside GLIDE-Reg, reduced by PCA."""

from __future__ import annotations

from dataclasses import replace

import torch

from ..errors import SettingsError
from ..features.cache import FeatureCache
from ..features.encoders import Encoder, load_encoder
from ..features.reduction import ReducedFeatures
from ..features.slices import encode_volume, foreground_cells, plan_slices
from ..optimize.warping import resize_displacement, warp
from ..progress import Progress
from .frame import Problem


class PairEncoder:
    """Encodes both images of a problem with an encoder, or with the one that its settings name."""

    def __init__(self, problem: Problem, channels: int, encoder: Encoder | None = None) -> None:
        settings = problem.settings
        features = settings.features
        if encoder is None and features.encoder == "none":
            raise SettingsError(f"The method {settings.method} needs an encoder; choose one.")
        self._problem = problem
        self._reduction = replace(settings.reduction, kind="pca", channels=channels, literal=False)
        self.encoder = encoder or load_encoder(
            features.encoder,
            weights=features.weights,
            device=problem.device,
            random_weights=features.random_weights,
            seed=settings.seed,
            progress=problem.progress,
            allow_unverified=features.allow_unverified,
        )
        self._plan = plan_slices(problem.prepared.grid, self.encoder, features)
        self._cache = FeatureCache(enabled=features.cache)
        prepared = problem.prepared
        self._fixed = self._encode(prepared.fixed, prepared.fixed_mask)
        self._first = self._encode(prepared.moving, prepared.moving_mask)

    def pair(
        self,
        pooling: int,
        displacement: torch.Tensor | None = None,
        warped: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Reduced (fixed, moving) features (channels, Z, Y, X) on the working grid pooled by
        ``pooling``, whitened together, zero outside the bodies.

        ``displacement`` (3, z, y, x), voxels of any pooled grid, warps the moving ones; ``warped``,
        the moving working image after it, is encoded again instead.
        """
        prepared = self._problem.prepared
        grid = prepared.grid.pooled(pooling)
        body, raw, after = prepared.moving_mask, self._first, displacement
        if displacement is not None and warped is not None:
            full = resize_displacement(displacement, body.shape)
            body = warp(body[None].float(), full)[0] > 0.5
            raw, after = self._encode(warped, body), None
        cells = self._plan.cells
        shares = [
            foreground_cells(mask, prepared.grid, self._plan)
            for mask in (prepared.fixed_mask, body)
        ]
        reduced = ReducedFeatures(
            *(self._fixed, raw),
            *shares,
            cells,
            self._reduction,
            self._problem.settings.seed,
            self._problem.progress.check,
        )
        index = cells.index_of(grid, prepared.fixed.device)
        fixed, moving = (cells.sample(volume, index) for volume in reduced.volumes())
        if after is not None:
            moving = warp(moving, resize_displacement(after, grid.shape))
        return fixed, moving

    def _encode(self, image: torch.Tensor, body: torch.Tensor) -> torch.Tensor:
        """Raw features on the cells, (channels, Z, Y, X) float16."""
        problem = self._problem
        features, modality = problem.settings.features, problem.prepared.modality
        # Only its check counts here: its own fractions would turn the stage's bar back.
        quiet = Progress(should_cancel=problem.progress.cancel_wanted)
        grid = problem.prepared.grid
        return encode_volume(
            image, body, grid, self._plan, self.encoder, features, modality, self._cache, quiet
        )
