"""Our own pairs: phantoms, semi-synthetic pairs with exact truth, the real development data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np

from ...errors import InputError
from ...geometry import Grid
from ...landmarks import read_landmark_pair
from ...sample_data.known_pair import KnownPair
from ...sample_data.local import data_folder
from ...volume import read_labels
from ..structures import LabelMap
from .pair import Pair, PointPair, by_side, file_pair

#: Name of a data set -> what it is.
SAMPLES: dict[str, str] = {
    "phantoms": "analytic thorax phantoms, exact truth",
    "nodules": "follow-up phantom with nodules, exact truth",
    "semi-synthetic": "real CT moved by a known field of COPD size, exact truth",
    "lung-followup": "real follow-up CT of one lung, 51 landmarks",
    "liver-mr": "real breathing MR, two subjects, landmarks in and outside the liver",
    "lung1": "two patients' CT with clinical contours: across patients, no landmarks",
}
_MR_CYCLES = (("19", "1_6"), ("19", "1_9"), ("23", "1_4"), ("23", "5_4"))
_LUNG1_NAMES = {1: "lung_left", 2: "lung_right", 3: "heart"}


@dataclass(frozen=True)
class Samples:
    """One of :data:`SAMPLES`; ``data`` is the folder of the real data (None: looked for)."""

    name: str
    data: Path | None = None

    @property
    def about(self) -> str:
        return SAMPLES[self.name]

    def pairs(self) -> list[Pair]:
        """The pairs; those with exact truth are made when they are read."""
        folder = partial(_folder, self.data)
        found: dict[str, Callable[[], list[Pair]]] = {
            "phantoms": _phantoms,
            "nodules": lambda: [_known("nodules", _nodule_phantom)],
            "semi-synthetic": lambda: [
                _known(name, partial(_semi_synthetic, name, folder()), {"CT": folder() / of})
                for name, of in (("popi", "thorax_popi00"), ("lidc", "thorax_lidc0001"))
            ],
            "lung-followup": lambda: [_lung(folder() / "lung_followup")],
            "liver-mr": lambda: [_mr(folder() / "liver_mr_breathing", *c) for c in _MR_CYCLES],
            "lung1": lambda: [_lung1(folder() / "thorax_lung1")],
        }
        return found[self.name]()


def _folder(data: Path | None) -> Path:
    if data is None:
        return data_folder()
    if not data.is_dir():
        raise InputError(f"The data folder '{data}' does not exist.")
    return data


# --- exact truth ------------------------------------------------------------------------------


def _phantoms() -> list[Pair]:
    from ...sample_data.phantom import PRESETS

    return [_known(name, partial(_phantom, name)) for name in PRESETS]


def _phantom(name: str) -> KnownPair:
    from ...sample_data.phantom import PRESETS, make_phantom_pair

    return make_phantom_pair(**PRESETS[name])


def _nodule_phantom() -> KnownPair:
    from ...sample_data.nodule_phantom import make_nodule_phantom

    return make_nodule_phantom()


def _semi_synthetic(name: str, folder: Path) -> KnownPair:
    from ...sample_data.semisynthetic import lidc_pair, popi_pair

    return {"popi": popi_pair, "lidc": lidc_pair}[name](folder)


def _known(name: str, make: Callable[[], KnownPair], files: dict[str, Path] | None = None) -> Pair:
    """A pair with exact truth; it is made once, by whoever reads it first. ``files``: what it is
    made from."""
    made = cache(make)

    def nodules(*_: Grid) -> PointPair:
        both = [n for n in made().nodules if n.moving_center and n.fixed_center]
        return tuple(
            np.array([getattr(n, f"{side}_center") for n in both]) for side in ("fixed", "moving")
        )

    return Pair(
        name,
        lambda: made().fixed,
        lambda: made().moving,
        read_landmarks=lambda *_: (made().fixed_landmarks, made().moving_landmarks),
        read_nodules=nodules if name == "nodules" else None,
        read_structures=lambda: tuple(
            LabelMap(labels, made().label_names | _phantom_names(made().label_names))
            for labels in (made().fixed_labels, made().moving_labels)
        ),
        files=files or {},
    )


def _phantom_names(names: dict[int, str]) -> dict[int, str]:
    """The phantoms' vessels are those of the lung."""
    return {value: "lung_vessels" for value, name in names.items() if name == "vessel"}


# --- real data --------------------------------------------------------------------------------


def _lung(folder: Path) -> Pair:
    stems = ("baseline", "followup")
    images = [folder / f"{name}.mha" for name in stems]
    masks = [folder / f"{name}_mask.mha" for name in stems]
    points = [[folder / f"{name}_points51.txt"] for name in stems]
    return file_pair(
        "lung",
        *images,
        read_landmarks=partial(_points, *points),
        read_structures=lambda: tuple(LabelMap(read_labels(m), {1: "lung"}) for m in masks),
        read_masks=lambda: tuple(map(read_labels, masks)),
        more_files={
            **by_side("landmarks", points),
            **by_side("mask", masks),
        },
    )


def _mr(folder: Path, subject: str, cycle: str) -> Pair:
    """Exhale master (fixed) and an inhale cycle (moving); landmarks in and outside the liver."""
    folder = folder / f"subject{subject}"
    stems = ("exhMaster", f"cyc_{cycle}")
    points = [
        [folder / f"{s}_landmarks_{part}.csv" for part in ("liver", "outside")] for s in stems
    ]
    return file_pair(
        f"mr{subject}-{cycle}",
        *(folder / f"{name}.nii.gz" for name in stems),
        read_landmarks=partial(_points, *points),
        more_files=by_side("landmarks", points),
    )


def _lung1(folder: Path) -> Pair:
    labels = [folder / f"LUNG1-00{n}_seg.nii.gz" for n in (2, 1)]
    images = [folder / f"LUNG1-00{n}_ct.nii.gz" for n in (2, 1)]
    return file_pair(
        "lung1",
        *images,
        read_structures=lambda: tuple(LabelMap(read_labels(p), _LUNG1_NAMES) for p in labels),
        more_files=by_side("labels", labels),
    )


def _points(fixed: list[Path], moving: list[Path], *_: Grid) -> PointPair:
    pairs = [read_landmark_pair(a, b) for a, b in zip(fixed, moving, strict=True)]
    return tuple(np.vstack([pair[side].points for pair in pairs]) for side in (0, 1))
