"""GlideReg itself, as a user runs it, from the same start.

Where ``workdir`` holds the native pair and the start (``benchmarks.pairs`` puts them there), those
are read: the pipeline then makes the very 1.5 mm images that the peers are given, and its time
includes that. Without them the images given are registered as they are.
"""

from __future__ import annotations

from pathlib import Path

import SimpleITK as sitk
import torch

from benchmarks.images import NATIVE, REMARKS, START
from GlideRegLib.geometry import Grid
from GlideRegLib.pipeline import register as register_pair
from GlideRegLib.settings import Settings, with_changes
from GlideRegLib.volume import Volume, read_volume


def register(
    fixed: sitk.Image,
    moving: sitk.Image,
    workdir: Path,
    preset: str = "standard",
    encoder: str = "none",
    spacing_mm: float | None = None,
) -> sitk.Image:
    """A preset with an encoder or "none"; slices are encoded anew, not taken from the cache.

    ``spacing_mm``: another working grid than the preset's.
    """
    start = workdir / START
    if start.is_file():
        pair = [read_volume(workdir / name) for name in NATIVE]
    else:
        pair = [Volume.from_sitk(sitk.Cast(image, sitk.sitkFloat32)) for image in (fixed, moving)]
    settings = with_changes(
        Settings.preset(preset),
        initial=str(start) if start.is_file() else "none",
        threads=torch.get_num_threads(),  # 0 would take all cores, whatever --threads says
        features={"encoder": encoder, "cache": False},
    )
    if spacing_mm is not None:
        settings = with_changes(settings, grid={"spacing_mm": spacing_mm})
    result = register_pair(*pair, settings)
    (workdir / REMARKS).write_text("\n".join(result.report["messages"]), encoding="utf-8")
    return result.field.resampled(Grid.from_sitk(fixed)).to_sitk()
