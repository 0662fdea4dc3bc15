"""The variational autoencoder that compresses encoder channels, per feature vector."""

from __future__ import annotations

import torch
from torch import nn


class Autoencoder(nn.Module):
    """channels -> hidden -> (mean, log variance) of ``latent`` -> hidden -> channels, GELU.

    With ``basis`` (channels, latent; whitening directions) a linear path runs beside the network
    and the network's last layers start at zero: the latent mean is whitened PCA at the first step
    and improves from there. Without it the network is the paper's, from a random start.
    """

    def __init__(
        self, channels: int, latent: int, hidden: int, basis: torch.Tensor | None = None
    ) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(channels, hidden), nn.GELU())
        self.mean = nn.Linear(hidden, latent)
        self.log_variance = nn.Linear(hidden, latent)
        self.decoder = nn.Sequential(
            nn.Linear(latent, hidden), nn.GELU(), nn.Linear(hidden, channels)
        )
        self.linear_mean: nn.Linear | None = None
        self.linear_decoder: nn.Linear | None = None
        if basis is not None:
            self.linear_mean = nn.Linear(channels, latent, bias=False)
            self.linear_decoder = nn.Linear(latent, channels, bias=False)
            with torch.no_grad():
                self.linear_mean.weight.copy_(basis.T)
                self.linear_decoder.weight.copy_(torch.linalg.pinv(basis).T)
                for layer in (self.mean, self.decoder[-1]):
                    layer.weight.zero_()
                    layer.bias.zero_()
                self.log_variance.weight.zero_()
                self.log_variance.bias.fill_(-3.0)

    def encode(self, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log variance (N, latent) of vectors (N, channels)."""
        hidden = self.encoder(values)
        mean = self.mean(hidden)
        if self.linear_mean is not None:
            mean = mean + self.linear_mean(values)
        return mean, self.log_variance(hidden).clamp(-12, 4)

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """Vectors (N, channels) from latents (N, latent)."""
        out = self.decoder(latent)
        return out if self.linear_decoder is None else out + self.linear_decoder(latent)

    def losses(
        self, values: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Reconstruction (mean square over batch and channels) and KL divergence (summed over
        latents, mean over the batch)."""
        mean, log_variance = self.encode(values)
        noise = torch.randn(mean.shape, generator=generator).to(mean)
        decoded = self.decode(mean + noise * (0.5 * log_variance).exp())
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1)
        return (decoded - values).square().mean(), divergence.mean()

    def encoder_parameters(self) -> list[nn.Parameter]:
        """The parameters that the registration's gradient reaches."""
        modules = [self.encoder, self.mean]
        if self.linear_mean is not None:
            modules.append(self.linear_mean)
        return [p for module in modules for p in module.parameters()]
