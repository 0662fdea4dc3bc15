"""From a specification and a weights file to an encoder that encodes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...errors import MemoryExceededError
from ..weights import LocatedWeights
from . import EncoderSpec
from .checkpoint import complete, read_state

#: Part of every cached feature's key; raise it when the same weights give other numbers.
_NUMERICS = 1
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


class NetworkEncoder:
    """An :class:`Encoder` around a frozen network; see the protocol for the attributes.

    ``precision`` is the type in which the network computes, None for float32. On CUDA it is
    float16, whose error is an eighth of bfloat16's; a batch that overflows is computed again in
    float32.
    """

    def __init__(
        self, spec: EncoderSpec, network: nn.Module, sha256: str | None, seed: int
    ) -> None:
        self.name = spec.name
        self.title = spec.title
        self.trained = sha256 is not None
        self.weights_sha256 = sha256
        self.channels = spec.channels
        self.stride = spec.stride
        self.fixed_side = spec.fixed_side
        self.side_multiple = spec.side_multiple
        self.identity = f"{spec.name}/{sha256 or f'random-{seed}'}/{_NUMERICS}"
        self.device = torch.device("cpu")
        self.precision: torch.dtype | None = None
        self._network = network
        mean = _IMAGENET_MEAN if spec.normalize else (0.0,) * 3
        deviation = _IMAGENET_DEVIATION if spec.normalize else (1.0,) * 3
        self._mean = torch.tensor(mean).view(1, 3, 1, 1)
        self._deviation = torch.tensor(deviation).view(1, 3, 1, 1)

    def to(self, device: str | torch.device) -> NetworkEncoder:
        """Moves it to a device, in place."""
        self.device = torch.device(device)
        self._network.to(self.device)
        self._mean = self._mean.to(self.device)
        self._deviation = self._deviation.to(self.device)
        self.precision = torch.float16 if self.device.type == "cuda" else None
        return self

    def encode(self, images: Tensor) -> Tensor:
        """RGB (B, 3, H, W) in 0 to 1 to features (B, channels, H/stride, W/stride), float32.

        Raises ValueError for a size that the encoder does not take, and
        :class:`MemoryExceededError` when the batch does not fit into the GPU.
        """
        self._check(images)
        try:
            features = self._encode(images)
        except torch.cuda.OutOfMemoryError as error:
            raise MemoryExceededError(
                f"The GPU has no memory for {len(images)} slices of {images.shape[-1]} pixels at "
                "once; choose a smaller batch, or the CPU."
            ) from error
        # A tensor that was born in inference mode could never take part in the VAE's training.
        return features.clone(memory_format=torch.contiguous_format)

    @torch.inference_mode()
    def _encode(self, images: Tensor) -> Tensor:
        images = (images.to(self.device, torch.float32) - self._mean) / self._deviation
        features = self._run(images, self.precision)
        if self.precision is not None and not torch.isfinite(features).all():
            features = self._run(images, None)
        return features

    def _run(self, images: Tensor, precision: torch.dtype | None) -> Tensor:
        with torch.autocast(self.device.type, precision, enabled=precision is not None):
            return self._network(images).float()

    def _check(self, images: Tensor) -> None:
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"(B, 3, H, W) is expected, not {tuple(images.shape)}")
        for side in images.shape[2:]:
            if self.fixed_side not in (None, side) or side % self.side_multiple or not side:
                wanted = self.fixed_side or f"a multiple of {self.side_multiple}"
                raise ValueError(f"a side of {wanted} is expected, not {side}")


def build_encoder(
    spec: EncoderSpec, located: LocatedWeights | None, seed: int, device: str | torch.device
) -> NetworkEncoder:
    """The network of ``spec`` with its weights (strictly), or with random ones of a seed.

    Raises :class:`WeightsError` when the file cannot be read or has another layout.
    """
    # Read before building: a damaged file is found out at once.
    state = read_state(located.path, spec.prefix) if located is not None else None
    # PyTorch draws every layer's start from its global state, which is not ours to change.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = spec.build()
    if state is not None:
        state = complete(state, network, located.path, spec.title)
        network.load_state_dict(state, strict=True)
    network.eval().requires_grad_(False)
    network.prepare()
    return NetworkEncoder(spec, network, located.sha256 if located else None, seed).to(device)
