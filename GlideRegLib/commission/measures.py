"""How far a registration is from the known truth, voxel by voxel, and whether that is enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from ..assurance.records import Assessment, Verdict
from ..errors import SettingsError
from ..field import sample_transform
from ..geometry import Grid
from ..result import Result
from .cases import KnownCase

#: Slices per slab: the dense fields of a whole CT would need gigabytes.
_SLAB = 16
#: What is darker is air; smoothed over this distance first.
AIR_HU, _SMOOTH_MM = -950.0, 1.5
#: What an error map holds where nothing was compared: 0 would read as "no error".
NOT_COMPARED = -1.0
#: Where a registration sees tissue all around a voxel, mm from the faces of both images.
_INNER_MM = 15.0
#: Edges of the classes of motion, mm; the last class is open.
MOTION_MM = (0.0, 2.0, 5.0, 10.0, 20.0)
#: Distances for which shares of voxels are stated, mm.
WITHIN_MM = (1.0, 2.0, 3.0)


@dataclass(frozen=True)
class Limits:
    """What is asked of every case, in the body.

    The defaults are those that AAPM TG-132 states for digital deformation phantoms (95 % of voxels
    within 2 mm, largest error below 5 mm), and no folding.
    """

    share_percent: float = 95.0
    within_mm: float = 2.0
    largest_mm: float = 5.0

    def __post_init__(self) -> None:
        if not 0 < self.share_percent <= 100 or not 0 < self.within_mm <= self.largest_mm:
            raise SettingsError(
                "The limits need a share of 0 to 100 % and 0 < within <= largest, in mm."
            )

    def looser_than_tg132(self) -> str:
        """One sentence that names the limits that ask for less than TG-132; "" when none does."""
        asked = Limits()
        looser = []
        if self.share_percent < asked.share_percent:
            looser.append(f"a share of {self.share_percent:g} % for {asked.share_percent:g} %")
        if self.within_mm > asked.within_mm:
            looser.append(f"within {self.within_mm:g} mm for {asked.within_mm:g} mm")
        if self.largest_mm > asked.largest_mm:
            looser.append(f"a largest error of {self.largest_mm:g} mm for {asked.largest_mm:g} mm")
        if not looser:
            return ""
        return f"The limits are looser than those of AAPM TG-132: {', '.join(looser)}."


def error_map(case: KnownCase, result: Result) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Error of the transform in mm at every fixed voxel, float32 (Z, Y, X), and masks (bool) of
    where it counts.

    "body": the fixed patient without free air, where the true partner lies inside of the moving
    image. "away from the ends": of these, what is at least 15 mm from the faces of both images.
    "lungs": of the body, where they are known.
    """
    grid = case.fixed.grid
    transform = result.to_sitk()
    errors = np.empty(grid.shape, np.float32)
    room = np.empty(grid.shape, np.float32)
    for start in range(0, grid.size[2], _SLAB):
        stop = min(start + _SLAB, grid.size[2])
        part = grid.padded((0, 0, -start), (0, 0, stop - grid.size[2]))
        found = sample_transform(transform, part).vectors.numpy()
        true = case.displacement[:, start:stop]
        errors[start:stop] = np.linalg.norm(found - true, axis=0)
        index = case.moving.grid.index_of(part)
        index += case.moving.grid.mm_to_voxels(torch.from_numpy(true))
        partner = _room(case.moving.grid, index)
        room[start:stop] = np.minimum(_room(grid, grid.index_of(part)), partner)
    # Air has no places that could be compared; a little smoothing keeps its noise out.
    smooth = ndimage.gaussian_filter(case.fixed.array, [_SMOOTH_MM / s for s in grid.spacing[::-1]])
    body = result.body & (smooth > AIR_HU) & (room >= 0)
    regions = {"body": body, "away from the ends": body & (room >= _INNER_MM)}
    if case.lungs is not None:
        regions["lungs"] = body & case.lungs
    return errors, regions


def _room(grid: Grid, index: torch.Tensor) -> np.ndarray:
    """Distance to the nearest outer face of a grid in mm, negative outside: (Z, Y, X), at
    continuous indices (3, Z, Y, X) in x y z order."""
    sides = [
        torch.minimum(along + 0.5, size - 0.5 - along) * spacing
        for along, size, spacing in zip(index, grid.size, grid.spacing, strict=True)
    ]
    return torch.stack(sides).amin(dim=0).numpy()


def summarize_case(case: KnownCase, result: Result, limits: Limits) -> tuple[dict, np.ndarray]:
    """The measures of one case as plain values, and its error map in mm, :data:`NOT_COMPARED` where
    it does not count.

    Errors in the body, away from its ends and in the lungs, in the body also by the size of the
    true motion; folding; inverse consistency; TRE at corners of the lungs; the verdict.
    """
    errors, regions = error_map(case, result)
    body = regions["body"]
    motion = np.linalg.norm(case.displacement, axis=0)
    quality = result.report["quality"]
    summary = {
        "name": case.name,
        "description": case.description,
        "motion_mm": {name: _spread(motion[mask]) for name, mask in regions.items()},
        "error_mm": {name: _spread(errors[mask]) for name, mask in regions.items()},
        "within_percent": {name: _within(errors[mask]) for name, mask in regions.items()},
        "compared_percent": float(100 * body.sum() / max(result.body.sum(), 1)),
        "by_motion": _by_motion(errors[body], motion[body]),
        "share_within_tenths_percent": _cumulative(errors[body]),
        "folding_percent": quality["folding_percent"],
        "smallest_jacobian": {"found": quality["jacobian"]["min"], "true": case.smallest_jacobian},
        "inverse_consistency_mm": quality["inverse_consistency_mm"],
        "worst_point_lps_mm": {name: _worst(errors, mask, case) for name, mask in regions.items()},
        "cost": result.report["cost"],
    }
    if case.landmarks is not None and len(case.landmarks[0]):
        summary["tre_mm"] = result.landmark_quality(*case.landmarks)["tre_mm"]
    summary["criteria"] = judge(summary, errors[body], limits)
    summary["verdict"] = _overall([c["status"] for c in summary["criteria"]])
    return summary, np.where(body, np.round(errors, 2), NOT_COMPARED).astype(np.float32)


def add_assessment(summary: dict, assessment: Assessment) -> None:
    """Adds the quality assurance of a case to its summary; its verdict counts as one more."""
    summary["assessment"] = assessment.to_dict()
    summary["verdict"] = _overall([summary["verdict"], assessment.verdict.value])


def judge(summary: dict, errors: np.ndarray, limits: Limits) -> list[dict]:
    """Each criterion with its value, its limit, and "compliant" or "not compliant"; "not verified"
    where nothing could be measured. ``errors`` (N,) are those in the body, mm."""
    if len(errors) == 0:
        return [{"name": "errors", "value": None, "limit": "-", "status": "not verified"}]
    share = float(100 * np.mean(errors <= limits.within_mm))
    folds = summary["folding_percent"]["body"]
    rows = [
        (
            f"share of the body within {limits.within_mm:g} mm",
            f"{share:.2f} %",
            f"at least {limits.share_percent:g} %",
            share >= limits.share_percent,
        ),
        (
            "largest error in the body",
            f"{errors.max():.2f} mm",
            f"below {limits.largest_mm:g} mm",
            errors.max() < limits.largest_mm,
        ),
        ("folded share of the body", f"{folds:.4f} %", "0 %", folds == 0),
    ]
    keys = ("name", "value", "limit", "status")
    return [
        dict(zip(keys, (*row[:3], "compliant" if row[3] else "not compliant"), strict=True))
        for row in rows
    ]


def _overall(statuses: list[str]) -> str:
    """The worst status: nothing unmeasured is ever called compliant, and nothing at all neither."""
    verdicts = [Verdict(status) for status in statuses]
    return max(verdicts, key=lambda v: v.severity, default=Verdict.NOT_VERIFIED).value


def overall(cases: list[dict], not_run: Sequence[str] = ()) -> str:
    """The verdict of a run: that of its worst case. A case that was not run is not verified."""
    return _overall([case["verdict"] for case in cases] + ["not verified"] * len(not_run))


def _spread(values: np.ndarray) -> dict[str, float | int] | None:
    if len(values) == 0:
        return None
    p50, p95, p99 = (float(v) for v in np.percentile(values, (50, 95, 99)))
    return {
        "mean": float(values.mean(dtype=float)),
        "median": p50,
        "p95": p95,
        "p99": p99,
        "max": float(values.max()),
        "n": len(values),
    }


def _within(errors: np.ndarray) -> dict[str, float] | None:
    if len(errors) == 0:
        return None
    return {f"{t:g}": float(100 * np.mean(errors <= t)) for t in WITHIN_MM}


def _cumulative(errors: np.ndarray) -> list[float]:
    """Percent of voxels with at most 0, 0.1, 0.2, ... 6 mm of error, for the curve."""
    counts, _ = np.histogram(errors, np.arange(0, 6.05, 0.1))
    return [0.0, *(100 * np.cumsum(counts) / max(len(errors), 1)).round(3).tolist()]


def _by_motion(errors: np.ndarray, motion: np.ndarray) -> list[dict]:
    """Errors in classes of the true motion; classes without voxels are left out."""
    rows = []
    for low, high in zip(MOTION_MM, (*MOTION_MM[1:], np.inf), strict=True):
        chosen = (motion >= low) & (motion < high)
        if chosen.any():
            edge = None if np.isinf(high) else high
            share = float(100 * chosen.mean())
            row = {"from_mm": low, "to_mm": edge, "share_percent": share}
            found = errors[chosen]
            rows.append({**row, **_spread(found), "within_percent": _within(found)})
    return rows


def _worst(errors: np.ndarray, counts: np.ndarray, case: KnownCase) -> list[float] | None:
    """The place of the largest error, LPS mm."""
    if not counts.any():
        return None
    flat = int(np.argmax(np.where(counts, errors, -1)))
    index = np.array(np.unravel_index(flat, errors.shape))[::-1]
    return [float(v) for v in case.fixed.grid.to_physical(index[None].astype(float))[0]]
