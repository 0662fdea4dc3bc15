"""Mask decoders: what segments a slice with the encoder's features of it, from the same file.

Only some encoders have one here, see :data:`SEGMENTERS`. SAM 2's decoder also takes the two finer
levels of its encoder's pyramid, which our encoder leaves out: it is not among them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import SettingsError, WeightsError
from ...progress import Progress
from ..encoders import FETCHED, PREFERENCE, Encoder, encoder_spec
from ..weights import LocatedWeights, WeightsSpec, find, locate

if TYPE_CHECKING:
    import torch

    from .sam import SamDecoder


@dataclass(frozen=True)
class SegmenterSpec:
    """An encoder that has a mask decoder. ``files``: those of its weights that hold both.
    ``prompts``: "boxes" or "points", the prompts that it was trained on; with boxes it was trained
    to give one mask each, with points several."""

    files: tuple[str, ...]
    prompts: str


#: By the name of the encoder.
SEGMENTERS = {
    "mobile_sam": SegmenterSpec(("mobile_sam.pt",), "points"),
    "lite_medsam": SegmenterSpec(("lite_medsam.pth",), "boxes"),
}


@dataclass(frozen=True)
class Segmenter:
    """An encoder with its mask decoder, both on one device; ``prompts`` as in the specification."""

    encoder: Encoder
    decoder: SamDecoder
    prompts: str


def load_segmenter(
    name: str = "auto",
    weights: str | Path | None = None,
    device: str | torch.device = "cpu",
    random_weights: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
    *,
    download: bool = True,
    allow_unverified: bool = False,
) -> Segmenter:
    """An encoder with its decoder, ready to segment; arguments as in ``encoders.load_encoder``.

    Raises :class:`SettingsError` for an encoder without a decoder, :class:`WeightsError` when the
    file lacks the decoder or has another layout, and Cancelled.
    """
    from ..encoders.network import build_encoder

    progress = progress or Progress()
    name, located = _chosen(name, weights, random_weights, download, allow_unverified, progress)
    spec = encoder_spec(name)
    encoder = build_encoder(spec, located, seed, device)
    decoder = build_decoder(located, spec.title, seed, device)
    words = f"weights {located.sha256[:12]}" if located else "random weights (control)"
    progress.message(f"Segmenter: {spec.title}, {words}.", "info" if located else "warning")
    return Segmenter(encoder, decoder, SEGMENTERS[name].prompts)


def build_decoder(
    located: LocatedWeights | None, title: str, seed: int, device: str | torch.device
) -> SamDecoder:
    """The decoder with the weights of a file (strictly), or with random ones of a seed.

    Raises :class:`WeightsError` when the file cannot be read or has another layout.
    """
    import torch

    from ..encoders.checkpoint import complete, read_state
    from .sam import SamDecoder

    state = None
    if located is not None:
        state = {
            key: value
            for key, value in read_state(located.path, "").items()
            if key.startswith(SamDecoder.prefixes) and not key.startswith(SamDecoder.unused)
        }
        if not state:
            raise WeightsError(
                f"{located.path} holds the image encoder of {title} alone, not its mask decoder; "
                "take the official file with both."
            )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder = SamDecoder()
    if state is not None:
        decoder.load_state_dict(complete(state, decoder, located.path, title), strict=True)
    return decoder.eval().requires_grad_(False).to(device)


def _chosen(
    name: str,
    weights: str | Path | None,
    random_weights: bool,
    download: bool,
    allow_unverified: bool,
    progress: Progress,
) -> tuple[str, LocatedWeights | None]:
    """The encoder's name and its file; None for random weights."""
    if name == "none" or name not in ("auto", *SEGMENTERS):
        raise SettingsError(
            f"The encoder '{name}' has no mask decoder here; choose auto, {', '.join(SEGMENTERS)}."
        )
    names = [n for n in PREFERENCE if n in SEGMENTERS] if name == "auto" else [name]
    if random_weights:
        return names[0], None
    if weights is not None:
        every = [spec for n in names for spec in encoder_spec(n).weights]
        located = locate(every, weights, download, progress, allow_unverified)
        owner = next((n for n in names if located.spec in encoder_spec(n).weights), names[0])
        return owner, located
    for candidate in names:
        located = find(_files(candidate), progress)
        if located is not None:
            return candidate, located
    fetched = [n for n in FETCHED if n in names] or names
    return fetched[0], locate(_files(fetched[0]), None, download, progress)


def _files(name: str) -> list[WeightsSpec]:
    """The files of an encoder that hold its decoder too."""
    return [spec for spec in encoder_spec(name).weights if spec.file_name in SEGMENTERS[name].files]
