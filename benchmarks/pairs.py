"""The pairs, each brought to the same start and the same 1.5 mm grid for every method."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from benchmarks.images import COMMON, NATIVE, START
from GlideRegLib.ablation import load_pair
from GlideRegLib.align import initial_alignment
from GlideRegLib.errors import SettingsError
from GlideRegLib.field import affine_to_sitk
from GlideRegLib.geometry import Grid
from GlideRegLib.landmarks import read_landmark_pair
from GlideRegLib.prepare import body_mask, detect_modality, normalize_intensity, prepare_pair
from GlideRegLib.progress import Progress
from GlideRegLib.sample_data.local import data_folder
from GlideRegLib.volume import Volume, read_volume, write_volume

SPACING_MM = 1.5
MARGIN_MM = 10.0
#: Name -> what it is.
PAIRS: dict[str, str] = {
    "lung": "lung_followup, real CT, 51 landmarks",
    "mr19-1_6": "liver_mr_breathing subject 19 cycle 1_6, real MR",
    "mr19-1_9": "liver_mr_breathing subject 19 cycle 1_9, real MR",
    "mr23-1_4": "liver_mr_breathing subject 23 cycle 1_4, real MR",
    "mr23-5_4": "liver_mr_breathing subject 23 cycle 5_4, real MR",
    "phantom": "analytic thorax phantom, exact truth",
    "popi": "semi-synthetic: POPI CT, breathing of COPD size, exact truth",
}


@dataclass(frozen=True)
class StartedPair:
    """What is measured with: native geometry, landmarks (N, 3) in LPS mm, body, affine start."""

    name: str
    grid: Grid
    body: np.ndarray
    fixed_points: np.ndarray
    moving_points: np.ndarray
    start: np.ndarray
    common: Grid


def start_pair(
    name: str, fixed: Volume, moving: Volume, points: tuple[np.ndarray, np.ndarray], folder: Path
) -> StartedPair:
    """Finds the affine start once, writes what the methods are given into ``folder``."""
    modality = detect_modality(fixed)
    normal = [normalize_intensity(volume, modality) for volume in (fixed, moving)]
    bodies = tuple(body_mask(volume, modality) for volume in normal)
    start, _ = initial_alignment(*normal, bodies, modality, Progress())
    prepared = prepare_pair(fixed, moving, start, SPACING_MM, MARGIN_MM, modality, bodies)
    folder.mkdir(parents=True, exist_ok=True)
    for file, tensor in zip(COMMON, (prepared.fixed, prepared.moving), strict=True):
        write_volume(folder / file, Volume(tensor.numpy(), prepared.grid))
    for file, volume in zip(NATIVE, (fixed, moving), strict=True):
        write_volume(folder / file, volume)
    sitk.WriteTransform(affine_to_sitk(start), str(folder / START))
    return StartedPair(name, fixed.grid, bodies[0], *points, start, prepared.grid)


def make_pair(name: str, folder: Path, data: Path | None = None) -> StartedPair:
    """One of :data:`PAIRS`, its files in ``folder``. Raises SettingsError for another name."""
    if name not in PAIRS:
        raise SettingsError(f"There is no pair '{name}'; choose from {', '.join(PAIRS)}.")
    if name.startswith("mr"):
        fixed, moving, points = _breathing(name, data or data_folder())
    else:
        loaded = load_pair("semi-synthetic" if name == "popi" else name, data)
        fixed, moving, points = loaded.fixed, loaded.moving, loaded.landmarks
    return start_pair(name, fixed, moving, points, folder)


def _breathing(name: str, data: Path) -> tuple[Volume, Volume, tuple[np.ndarray, np.ndarray]]:
    """Exhale master (fixed) and an inhale cycle; landmarks in and outside the liver together."""
    subject, cycle = name.removeprefix("mr").split("-")
    folder = data / "liver_mr_breathing" / f"subject{subject}"
    stems = ("exhMaster", f"cyc_{cycle}")
    parts = [
        read_landmark_pair(*(folder / f"{stem}_landmarks_{part}.csv" for stem in stems))
        for part in ("liver", "outside")
    ]
    points = tuple(np.vstack([pair[side].points for pair in parts]) for side in (0, 1))
    fixed, moving = (read_volume(folder / f"{stem}.nii.gz") for stem in stems)
    return fixed, moving, points
