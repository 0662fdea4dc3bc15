"""What every method begins with: modality, masks and bodies, the start, and where images count."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from .align import initial_alignment
from .errors import InputError
from .field import linear_matrix, read_transform
from .prepare import Prepared, body_mask, detect_modality, normalize_intensity
from .progress import Progress
from .settings import Settings
from .volume import Volume

if TYPE_CHECKING:
    from .constraints import LandmarkConstraints


def understand(
    fixed: Volume, moving: Volume, settings: Settings, given: tuple[Volume | None, Volume | None]
) -> tuple[str, tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Modality; the masks that count (given ones, else bodies); the bodies."""
    found = [
        detect_modality(v) if settings.modality == "auto" else settings.modality
        for v in (fixed, moving)
    ]
    if found[0] != found[1]:
        raise InputError(
            f"The fixed image looks like {found[0].upper()} and the moving one like "
            f"{found[1].upper()}; pairs of one modality are supported (override with --modality)."
        )
    modality = found[0]
    bodies = tuple(body_mask(normalize_intensity(v, modality), modality) for v in (fixed, moving))
    masks = []
    for name, volume, mask, body in zip(
        ("fixed", "moving"), (fixed, moving), given, bodies, strict=True
    ):
        if mask is None:
            masks.append(body)
            continue
        fitted = (
            mask
            if mask.grid.is_close(volume.grid, 1e-2)
            else mask.resampled(volume.grid, labels=True)
        )
        if not fitted.array.any():
            raise InputError(f"The {name} mask does not overlap the {name} image.")
        masks.append(fitted.array > 0)
    return modality, tuple(masks), bodies


def find_start(
    fixed: Volume,
    moving: Volume,
    masks: tuple[np.ndarray, np.ndarray],
    modality: str,
    settings: Settings,
    progress: Progress,
    guides: LandmarkConstraints | None = None,
) -> np.ndarray:
    """The start, 4x4 fixed to moving LPS mm: found, none, or from a file."""
    if settings.initial == "none":
        return np.eye(4)
    if settings.initial != "auto":
        return linear_matrix(read_transform(settings.initial))
    pair = [normalize_intensity(volume, modality) for volume in (fixed, moving)]
    matrix, name = initial_alignment(*pair, masks, modality, progress, guides)
    progress.message(f"Initial alignment: {name}.")
    return matrix


def trusted(
    prepared: Prepared, fixed_masked: bool, moving_masked: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where each image counts: where it has data, and inside the user's mask if there is one.
    Bool (Z, Y, X), fixed and moving."""
    pairs = (
        (prepared.fixed_inside, prepared.fixed_mask, fixed_masked),
        (prepared.moving_inside, prepared.moving_mask, moving_masked),
    )
    first, second = (inside & mask if masked else inside for inside, mask, masked in pairs)
    return first, second
