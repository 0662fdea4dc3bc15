"""Measures of the intensities: information only, because a wrong field can make images alike."""

from __future__ import annotations

import numpy as np

from ..volume import Volume
from .records import Measure
from .subject import Subject

#: Voxels that enter, at most.
_VOXELS = 4_000_000
_BINS = 64


def intensity_measures(subject: Subject, warped: Volume) -> list[Measure]:
    """Correlation, mutual information and mean absolute difference in the body where the moving
    image has data, after and before (coordinates as they stand).

    ``warped`` is the moving image on the fixed grid. CT is clipped to -1024 to 1500 HU.
    """
    unmoved = subject.moving.resampled(subject.fixed.grid, background=subject.background)
    after = _compare(subject, warped, _inside(subject, subject.transform))
    before = _compare(subject, unmoved, _inside(subject, None))
    note = "" if after else "no part of the body lies in the moving image"
    keys = ("correlation", "mutual_information", "mean_difference")
    return [
        Measure(key, "body", after.get(key), before.get(key), n=after.get("n"), note=note)
        for key in keys
    ]


def _inside(subject: Subject, transform: object) -> np.ndarray:
    """Where the moving image has data: bool (Z, Y, X) on the fixed grid."""
    moving = subject.moving
    ones = Volume(np.ones(moving.array.shape, np.uint8), moving.grid)
    return ones.resampled(subject.fixed.grid, transform, labels=True).array > 0


def _compare(subject: Subject, other: Volume, inside: np.ndarray) -> dict:
    flat = np.flatnonzero(subject.body & inside)
    flat = flat[:: max(1, flat.size // _VOXELS)]
    if flat.size < 2:
        return {}
    a, b = (v.array.ravel()[flat].astype(np.float64) for v in (subject.fixed, other))
    if subject.modality == "ct":
        from ..prepare import CT_RANGE

        a, b = np.clip(a, *CT_RANGE), np.clip(b, *CT_RANGE)
    found = {"mean_difference": float(np.abs(a - b).mean()), "n": int(flat.size)}
    found["mutual_information"] = mutual_information(a, b)
    if a.std() > 0 and b.std() > 0:
        found["correlation"] = float(np.corrcoef(a, b)[0, 1])
    return found


def mutual_information(a: np.ndarray, b: np.ndarray) -> float:
    """Mutual information (nat) of paired values (N,), from a joint histogram of 64 x 64 bins."""
    joint, _, _ = np.histogram2d(a, b, bins=_BINS)
    joint /= joint.sum()
    independent = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    used = joint > 0
    return float((joint[used] * np.log(joint[used] / independent[used])).sum())
