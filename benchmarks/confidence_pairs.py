"""The pairs on which the uncertainty is calibrated and checked, easy ones and spoiled ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.pairs import _breathing
from GlideRegLib.ablation import load_pair
from GlideRegLib.sample_data.known_pair import KnownPair
from GlideRegLib.sample_data.phantom import PRESETS, make_phantom_pair
from GlideRegLib.sample_data.semisynthetic import lidc_pair, pair_from_breathing, popi_pair
from GlideRegLib.volume import Volume, read_volume

Make = Callable[[Path], KnownPair]


def _lidc(**motion: float) -> Make:
    return lambda data: lidc_pair(data, **motion)


def _popi(**motion: float) -> Make:
    return lambda data: popi_pair(data, **motion)


def _lung1(number: int, **motion: float) -> Make:
    file = f"thorax_lung1/LUNG1-00{number}_ct.nii.gz"
    return lambda data: pair_from_breathing(read_volume(data / file), **motion)


def _phantom(preset: str, seed: int = 0) -> Make:
    return lambda data: make_phantom_pair(**PRESETS[preset], seed=seed)


def _with_holes(make: Make, seed: int) -> Make:
    """Five balls of 14 to 32 mm radius in the lungs are replaced by noise without texture: three
    in both images, two in the moving image alone (tissue that has no partner)."""

    def spoiled(data: Path) -> KnownPair:
        pair, rng = make(data), np.random.default_rng(seed)
        arrays = {"fixed": pair.fixed.array.copy(), "moving": pair.moving.array.copy()}
        lungs = np.argwhere(pair.fixed_labels.array > 0)
        for ball in range(5):
            index = lungs[rng.integers(len(lungs))][::-1]
            center = pair.fixed.grid.to_physical(index[None].astype(float))
            centers = {"fixed": center, "moving": center + pair.field.sample(center)}
            radius, value = rng.uniform(14, 32), (-800.0, 30.0)[ball % 2]
            for role in ("fixed", "moving") if ball < 3 else ("moving",):
                _paint_ball(arrays[role], getattr(pair, role), centers[role], radius, value, rng)
        volumes = {role: Volume(a, getattr(pair, role).grid) for role, a in arrays.items()}
        return replace(pair, **volumes)

    return spoiled


def _paint_ball(
    array: np.ndarray,
    volume: Volume,
    center: np.ndarray,
    radius: float,
    value: float,
    rng: np.random.Generator,
) -> None:
    index = np.stack(np.indices(array.shape)[::-1], axis=-1)
    offset = (index - volume.grid.to_index(center)[0]) * np.asarray(volume.grid.spacing)
    share = np.clip((radius - np.linalg.norm(offset, axis=-1)) / 3 + 0.5, 0, 1)
    grain = rng.normal(scale=20, size=array.shape)
    array[:] = array * (1 - share) + share * (value + grain)


def _cropped(make: Make, length_mm: float) -> Make:
    """The moving scan ends ``length_mm`` earlier: part of the diaphragm is out of view."""

    def spoiled(data: Path) -> KnownPair:
        pair = make(data)
        moving = pair.moving
        count = round(length_mm / moving.grid.spacing[2])
        grid = moving.grid.padded((0, 0, -count), (0, 0, 0))
        part = Volume(np.ascontiguousarray(moving.array[count:]), grid)
        return replace(pair, moving=part)

    return spoiled


#: Name -> (anatomy, how it is made). One anatomy is left out at a time; all phantoms are one.
KNOWN: dict[str, tuple[str, Make]] = {
    "lidc": ("lidc", _lidc()),
    "lidc-noisy": ("lidc", _lidc(mean_motion=12, max_motion=30, noise=80, seed=1)),
    "lidc-holes": ("lidc", _with_holes(_lidc(mean_motion=15, max_motion=40, seed=2), 2)),
    "popi": ("popi", _popi()),
    "popi-small": ("popi", _popi(mean_motion=8, max_motion=20, seed=1)),
    "popi-cropped": (
        "popi",
        _cropped(_popi(mean_motion=15, max_motion=40, noise=40, seed=2), 40.0),
    ),
    "lung1-1": ("lung1-1", _lung1(1, mean_motion=15, max_motion=40, noise=30)),
    "lung1-2": ("lung1-2", _lung1(2)),
    "lung1-2-holes": (
        "lung1-2",
        _with_holes(_lung1(2, mean_motion=12, max_motion=30, noise=40, seed=3), 5),
    ),
    "phantom-A0": ("phantom", _phantom("breathing")),
    "phantom-A1": ("phantom", _phantom("breathing", 1)),
    "phantom-S0": ("phantom", _phantom("sliding")),
    "phantom-H0": ("phantom", _phantom("hard")),
    "phantom-H1": ("phantom", _phantom("hard", 1)),
    "phantom-X0": ("phantom", _phantom("extreme")),
    "phantom-X1": ("phantom", _phantom("extreme", 1)),
}
REAL = ("lung", "mr19-1_6", "mr19-1_9", "mr23-1_4", "mr23-5_4")


@dataclass(frozen=True)
class CheckedPair:
    """Two images, landmarks (N, 3) in LPS mm, and the truth where it is known."""

    fixed: Volume
    moving: Volume
    landmarks: tuple[np.ndarray, np.ndarray]
    truth: KnownPair | None


def make_pair(name: str, data: Path) -> CheckedPair:
    """One of :data:`KNOWN` or :data:`REAL`."""
    if name in KNOWN:
        pair = KNOWN[name][1](data)
        landmarks = (pair.fixed_landmarks, pair.moving_landmarks)
        return CheckedPair(pair.fixed, pair.moving, landmarks, pair)
    if name == "lung":
        loaded = load_pair("lung", data)
        return CheckedPair(loaded.fixed, loaded.moving, loaded.landmarks, None)
    return CheckedPair(*_breathing(name, data), None)
