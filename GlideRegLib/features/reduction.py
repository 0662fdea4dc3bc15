"""From the encoder's 256 channels to the 12 that the registration compares.

Three ways behind one class: whitened PCA, a VAE trained beforehand ("static"), and a VAE that goes
on learning together with the field ("dynamic": GLIDE-Reg). Whatever the way, the reduced channels
are standardized over the foreground of both images before they enter the energy: with raw scores
one channel would dominate the SSD, and a shrinking latent would be a trivial minimum.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..geometry import Grid, index_tensor
from ..settings import ReductionSettings
from .autoencoder import Autoencoder

#: Channels kept by the first, linear projection (96 to 98 % of the variance; 4 times less work).
PROJECTED = 64
_ROWS = 65536


class ReducedFeatures:
    """The global features of a pair: raw on both cell grids, reduced on demand.

    ``fixed`` and ``moving`` are (256, Z, Y, X) float16 on ``cells``; ``fixed_share`` and
    ``moving_share`` (Z, Y, X) tell how much of a cell is tissue.
    """

    def __init__(
        self,
        fixed: torch.Tensor,
        moving: torch.Tensor,
        fixed_share: torch.Tensor,
        moving_share: torch.Tensor,
        cells: Grid,
        settings: ReductionSettings,
        seed: int,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.cells = cells
        self.shares = (fixed_share, moving_share)
        self._settings = settings
        self._check = check
        self._generator = torch.Generator().manual_seed(seed)
        self._foreground = [(share > 0.25).reshape(-1) for share in self.shares]
        rows = _standardized(fixed, moving, self._foreground)
        basis = _principal_directions(rows)
        if not settings.literal:
            kept = min(PROJECTED, rows.shape[1])
            rows = torch.cat([part @ basis[0][:, :kept] for part in rows.split(_ROWS)])
            basis = _principal_directions(rows)
        self._rows = rows.to(fixed_share.device)
        self._whitening = basis[0][:, : settings.channels] / basis[1][: settings.channels].sqrt()
        self._model: Autoencoder | None = None
        if settings.kind != "pca":
            self._start_model()

    # --- what the registration sees -----------------------------------------------------------

    def volumes(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Fixed and moving reduced features (channels, Z, Y, X), unit variance over the
        foreground of both, zero outside it."""
        latents = torch.cat([self._encode(part) for part in self._rows.split(_ROWS)])
        latents = _standardize(latents)
        count = int(self._foreground[0].sum())
        return (
            self._to_volume(latents[:count], 0),
            self._to_volume(latents[count:], 1),
        )

    def latent_deviation(self) -> torch.Tensor:
        """Standard deviation of each latent channel before standardization (collapse check)."""
        return torch.cat([self._encode(part) for part in self._rows.split(_ROWS)]).std(dim=0)

    @property
    def learns(self) -> bool:
        """Whether :meth:`update` does anything."""
        return self._settings.kind == "dynamic" and self._model is not None

    def update(self, displacement: torch.Tensor) -> None:
        """A few training steps of the VAE for a given displacement (3, Z, Y, X), voxels of
        ``cells``: reconstruction, divergence, and the registration's own loss."""
        if not self.learns:
            return
        pairs = _Correspondences(self, displacement)
        for _ in range(self._settings.steps_per_update):
            self._train_step(pairs)

    # --- training -----------------------------------------------------------------------------

    def _start_model(self) -> None:
        settings = self._settings
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(self._generator.initial_seed()))
            self._model = Autoencoder(
                self._rows.shape[1],
                settings.channels,
                settings.hidden,
                None if settings.literal else self._whitening.cpu(),
            ).to(self._rows.device)
        self._optimizer = torch.optim.Adam(self._model.parameters(), lr=settings.learning_rate)
        steps = settings.warm_up if settings.kind == "dynamic" else settings.static_steps
        for step in range(steps):
            if step % 10 == 0:
                self._check()
            self._train_step(None)

    def _train_step(self, pairs: _Correspondences | None) -> None:
        settings, model = self._settings, self._model
        rows = self._rows[self._random(len(self._rows))]
        mean_square, divergence = model.losses(rows, self._generator)
        if settings.literal:
            own = settings.reconstruction * mean_square + settings.divergence * divergence
        else:
            own = mean_square / rows.var() + settings.divergence_balanced * divergence
        self._optimizer.zero_grad(set_to_none=True)
        own.backward()
        if pairs is not None:
            self._add_registration_gradient(pairs)
        self._optimizer.step()

    def _add_registration_gradient(self, pairs: _Correspondences) -> None:
        """Adds the gradient of the SSD between corresponding latents, scaled to ``balance`` times
        that of the model's own loss: at the paper's weights it would be 10^4 times smaller."""
        fixed, moving = pairs.sample(self._random(pairs.count))
        latents = torch.cat((self._model.encode(fixed)[0], self._model.encode(moving)[0]))
        latents = _standardize(latents) if not self._settings.literal else latents
        half = len(fixed)
        loss = (latents[:half] - latents[half:]).square().sum(dim=1).mean()
        parameters = self._model.encoder_parameters()
        gradients = torch.autograd.grad(loss, parameters)
        if self._settings.literal:
            scale = 0.5  # alpha of the paper
        else:
            own = sum(float(p.grad.square().sum()) for p in parameters) ** 0.5
            other = sum(float(g.square().sum()) for g in gradients) ** 0.5
            scale = self._settings.balance * own / max(other, 1e-12)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad.add_(gradient, alpha=scale)

    def _random(self, count: int) -> torch.Tensor:
        chosen = torch.randint(count, (self._settings.batch,), generator=self._generator)
        return chosen.to(self._rows.device)

    # --- helpers ------------------------------------------------------------------------------

    @torch.no_grad()
    def _encode(self, rows: torch.Tensor) -> torch.Tensor:
        return rows @ self._whitening if self._model is None else self._model.encode(rows)[0]

    def _to_volume(self, rows: torch.Tensor, which: int) -> torch.Tensor:
        """Rows of the foreground back into their cells; soft edge by the share of tissue."""
        mask = self._foreground[which]
        volume = rows.new_zeros(mask.numel(), rows.shape[1])
        volume[mask] = rows
        share = self.shares[which].reshape(-1, 1)
        return (volume * share).T.reshape(-1, *self.cells.shape).contiguous()


class _Correspondences:
    """Fixed foreground cells and what lies at their displaced positions in the moving features."""

    def __init__(self, features: ReducedFeatures, displacement: torch.Tensor) -> None:
        fixed_mask, moving_mask = features._foreground
        self._split = int(fixed_mask.sum())
        self._rows = features._rows
        shape = features.cells.shape
        lookup = torch.full_like(moving_mask, -1, dtype=torch.long)
        lookup[moving_mask] = torch.arange(self._split, len(self._rows), device=lookup.device)
        target = (
            (index_tensor(shape, displacement.device) + displacement)
            .round()
            .long()
            .reshape(3, -1)[:, fixed_mask]
        )
        size = torch.tensor(features.cells.size, device=target.device).view(3, 1)
        inside = ((target >= 0) & (target < size)).all(dim=0)
        target = target.clamp(min=0).minimum(size - 1)
        row = lookup[(target[2] * shape[1] + target[1]) * shape[2] + target[0]]
        valid = inside & (row >= 0)
        self._fixed = torch.nonzero(valid).flatten()
        self._moving = row[valid]
        if len(self._fixed) == 0:  # nothing overlaps: the loss is then between equal cells
            self._fixed = self._moving = torch.arange(self._split, device=row.device)

    @property
    def count(self) -> int:
        return len(self._fixed)

    def sample(self, chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Feature rows (N, channels) of corresponding fixed and moving cells (nearest cell)."""
        return self._rows[self._fixed[chosen]], self._rows[self._moving[chosen]]


def _standardized(
    fixed: torch.Tensor, moving: torch.Tensor, foreground: list[torch.Tensor]
) -> torch.Tensor:
    """Foreground vectors of both images (N, channels) float32, each channel standardized."""
    parts = [
        volume.reshape(volume.shape[0], -1)[:, mask].T.float()
        for volume, mask in zip((fixed, moving), foreground, strict=True)
    ]
    return _standardize(torch.cat(parts))


def _standardize(rows: torch.Tensor) -> torch.Tensor:
    return (rows - rows.mean(dim=0)) / rows.std(dim=0).clamp_min(1e-6)


def _principal_directions(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Directions (channels, channels) by falling variance, and the variances.

    The sign of each is fixed by its largest component, so that results can be repeated.
    """
    covariance = (rows.T @ rows / len(rows)).double()
    values, vectors = torch.linalg.eigh(covariance)
    values, vectors = values.flip(0).clamp_min(1e-9), vectors.flip(1)
    largest = vectors.abs().argmax(dim=0)
    sign = vectors[largest, torch.arange(vectors.shape[1])].sign()
    return (vectors * sign).float(), values.float()
