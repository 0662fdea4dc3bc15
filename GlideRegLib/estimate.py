"""How long a registration will take, before it is started: for a button's text, not for science."""

from __future__ import annotations

from . import machine
from .settings import Settings

#: Measured with two cores of a shared machine on pairs of 11 and 100 liters (their times are in
#: Testing/library/test_estimate.py): seconds per million voxels of the working grid without its
#: full-resolution level and with it, seconds per million pixels that the encoder sees, and what
#: does not depend on the size.
_PER_MEGAVOXEL = 1.3
_PER_MEGAVOXEL_FULL = 1.3
_PER_ADAM_ITERATION = 0.05
_PER_MEGAPIXEL = {"mobile_sam": 0.55, "lite_medsam": 4.0, "auto": 2.5}
_PER_MEGAPIXEL_HIERA = 2.5
_REDUCTION = 6.0
_FIXED = 2.0
_CORES_MEASURED = 2
#: More cores than this have not been seen to help.
_CORES_USEFUL = 8


def expected_seconds(
    extent_mm: tuple[float, float, float], settings: dict, cuda: bool = False
) -> float | None:
    """Seconds on the CPU for a fixed image of that size (x, y, z), or None when nothing is known.

    ``settings`` are plain values as of :meth:`Settings.to_dict`. Loaded machines need up to twice
    as long. Nothing is known for CUDA and for other methods: they were never measured. Raises
    SettingsError.
    """
    chosen = Settings.from_dict(settings)
    if chosen.method != "glide" or (cuda and chosen.device != "cpu"):
        return None
    spacing = chosen.grid.spacing_mm
    volume = extent_mm[0] * extent_mm[1] * extent_mm[2]
    megavoxels = volume / spacing**3 / 1e6
    seconds = megavoxels * _PER_MEGAVOXEL
    if chosen.refine.solver == "adam":
        seconds += chosen.refine.adam_iterations * megavoxels * _PER_ADAM_ITERATION
    elif any(level.pooling == 1 for level in chosen.refine.levels):
        seconds += megavoxels * _PER_MEGAVOXEL_FULL
    if chosen.uses_global:
        seconds += _REDUCTION + _encoding(extent_mm, chosen)
    cores = chosen.threads or machine.usable_cores()
    return _FIXED + seconds * _CORES_MEASURED / min(cores, _CORES_USEFUL)


def _encoding(extent_mm: tuple[float, float, float], chosen: Settings) -> float:
    """Seconds to encode both images: slices times pixels (16 for every cell along an axis)."""
    features = chosen.features
    slices = 2 * extent_mm[2] / max(features.slice_mm, chosen.grid.spacing_mm)
    if features.input_side is not None:
        pixels = float(features.input_side**2)
    else:
        pixels = 256 * extent_mm[0] * extent_mm[1] / features.cell_mm**2
    return slices * pixels / 1e6 * _PER_MEGAPIXEL.get(features.encoder, _PER_MEGAPIXEL_HIERA)
