"""From a specification and a weights file to an encoder that encodes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ...errors import WeightsError
from ..weights import LocatedWeights
from . import EncoderSpec

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


class NetworkEncoder:
    """An :class:`Encoder` around a frozen network; see the protocol for the attributes."""

    channels = 256

    def __init__(
        self, spec: EncoderSpec, network: nn.Module, sha256: str | None, device: str | torch.device
    ) -> None:
        self.name = spec.name
        self.trained = sha256 is not None
        self.weights_sha256 = sha256
        self.stride = spec.stride
        self.fixed_side = spec.fixed_side
        self.side_multiple = spec.side_multiple
        self._network = network.to(device)
        self._device = torch.device(device)
        mean = _IMAGENET_MEAN if spec.normalize else (0.0,) * 3
        deviation = _IMAGENET_DEVIATION if spec.normalize else (1.0,) * 3
        self._mean = torch.tensor(mean, device=device).view(1, 3, 1, 1)
        self._deviation = torch.tensor(deviation, device=device).view(1, 3, 1, 1)

    @torch.inference_mode()
    def encode(self, images: Tensor) -> Tensor:
        """RGB (B, 3, H, W) in 0 to 1 to features (B, 256, H/stride, W/stride), float32."""
        images = (images.to(self._device) - self._mean) / self._deviation
        half = self._device.type == "cuda"
        with torch.autocast(self._device.type, dtype=torch.float16, enabled=half):
            return self._network(images).float()


def build_encoder(
    spec: EncoderSpec, located: LocatedWeights | None, seed: int, device: str | torch.device
) -> NetworkEncoder:
    """The network of ``spec`` with its weights (strictly), or with random ones of a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = spec.build()
    if located is not None:
        state = read_state(located.path, spec.prefix)
        try:
            network.load_state_dict(state, strict=True)
        except RuntimeError as error:
            raise WeightsError(
                f"{located.path} does not have the layout of {spec.title}; take the official file."
            ) from error
    network.eval().requires_grad_(False)
    network.prepare()
    return NetworkEncoder(spec, network, located.sha256 if located else None, device)


def read_state(path: Path, prefix: str) -> dict[str, Tensor]:
    """The image encoder's tensors of a checkpoint, without the prefix; no code is run.

    Reads safetensors, or PyTorch files with ``weights_only=True``; a dictionary under "model" is
    opened. A file that holds the image encoder alone has no prefix. Raises WeightsError.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the readers raise whatever a damaged file makes them stumble on
        raise WeightsError(
            f"{path} cannot be read as weights ({type(error).__name__}); it is damaged or holds "
            "more than tensors."
        ) from error
    if isinstance(state, dict) and isinstance(state.get("model"), dict):
        state = state["model"]
    if not isinstance(state, dict) or not state:
        raise WeightsError(f"{path} holds no tensors by name; take the official file.")
    inside = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    return _without_index_buffers(inside or dict(state))


def _without_index_buffers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """TinyViT's look-up tables are computed, not learned; some checkpoints save them."""
    return {k: v for k, v in state.items() if not k.endswith("attention_bias_idxs")}
