"""How far a registration may be off, voxel by voxel: the expected length of its error in mm.

Nobody knows the true motion of a real pair, so this is an estimate from three pieces of evidence
on a coarse lattice (4 working voxels), calibrated on pairs whose truth is known:

* rivalry: how much better the features would fit one lattice voxel away, as a share of the cost.
  It is above zero where the images say nothing, and where they contradict the field;
* looseness: the standard deviation of a shift that is fitted to the features around, from the
  structure tensor (the aperture problem), as in the covariance of Foerstner's corner measure;
* bending: |laplacian u| of the lattice. Where the field bends, a smoother truth or a sharper one
  fits as well.

The expected error is a product of powers of the three. Tried beside it, dearer and no better:
posterior samples of the Gauss-Newton system, backward steps from the inverse field, weaker and
stiffer bending, the spread of a larger search window (README, *Confidence*).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from .optimize.energy import FeaturePair, laplacian
from .optimize.warping import box_filter, warp
from .volume import Volume

if TYPE_CHECKING:
    from .features.pyramid import FeaturePyramid
    from .field import DisplacementField

# --- calibration: made by ``python -m benchmarks.confidence DATA --fit`` --------------------------
#: Expected error in mm = exp(constant) * rivalry^a * looseness^b * bending^c, each plus its offset.
EXPONENTS = {"rivalry": 0.470, "looseness": 1.725, "bending": 1.471}
CONSTANT = -2.128
#: Added before the power: below it the evidence is noise.
OFFSETS = {"rivalry": 1e-2, "looseness": 1e-3, "bending": 1.0}
#: The error stays below this multiple of the uncertainty in so many percent of the voxels.
COVERAGE = {50: 0.79, 90: 2.04, 95: 2.76}
# --------------------------------------------------------------------------------------------------

#: What is given where nothing was compared: out of view, or outside of a user's mask. mm.
UNKNOWN_MM = 30.0
#: No estimate is smaller, mm: below it the truth of the calibration pairs is not exact either.
SMALLEST_MM = 0.1
#: The lattice is the working grid pooled by this: what the features say depends on their pooling.
POOLING = 4
#: In the summary: the share of the body above this, mm.
DOUBTFUL_MM = 2.0

#: Keeps structure tensors invertible, and the relative rivalry finite (feature units squared).
_DAMPING = 1e-3
_COST_FLOOR = 0.05
#: Times that a 3^3 box filter smooths the structure tensor and the bending.
_WIDE, _MIDDLE = 4, 3


@dataclass(frozen=True)
class Evidence:
    """What speaks for and against a field, float32 (Z, Y, X) on one lattice.

    ``rivalry`` (0 to 1), ``looseness`` (voxels), ``bending`` (mm) as the module says; ``seen``
    (0 to 1) is the share of a voxel that both images show and their masks let count.
    """

    rivalry: torch.Tensor
    looseness: torch.Tensor
    bending: torch.Tensor
    seen: torch.Tensor


def estimate_uncertainty(
    pyramid: FeaturePyramid, field: DisplacementField, check: Callable[[], None] = lambda: None
) -> Volume:
    """The expected error of ``field`` (LPS mm, fixed to the aligned moving image), in mm.

    Float32 (Z, Y, X) on the working grid pooled by 4, never NaN, ``SMALLEST_MM`` to
    ``UNKNOWN_MM``. Only local features take part. ``check`` may raise to cancel.
    """
    grid = pyramid.grid_at(POOLING)
    displacement = grid.mm_to_voxels(field.sample_grid(grid)).to(pyramid.device)
    pair, trust = pyramid.local(POOLING), pyramid.trust_at(POOLING)
    found = gather_evidence(pair, displacement, trust, grid.spacing[0], check)
    return Volume(expected_error(found).cpu().numpy(), grid)


def gather_evidence(
    pair: FeaturePair,
    displacement: torch.Tensor,
    trust: tuple[torch.Tensor, torch.Tensor],
    spacing: float,
    check: Callable[[], None] = lambda: None,
) -> Evidence:
    """The evidence for a displacement (3, Z, Y, X) in voxels of the features' grid.

    ``trust`` are weights (Z, Y, X) of fixed and moving voxels, ``spacing`` mm per voxel.
    """
    warped = warp(pair.moving, displacement)
    seen = trust[0] * _sample_or_nothing(trust[1], displacement)
    bending = box_filter(laplacian(displacement).square().sum(dim=0), _MIDDLE).sqrt_() * spacing
    return Evidence(
        _rivalry(pair.fixed, warped, seen, check),
        _looseness(pair.fixed, warped, seen, check),
        bending,
        seen,
    )


def expected_error(evidence: Evidence) -> torch.Tensor:
    """The calibrated estimate in mm: (Z, Y, X). Towards what was not seen it grows to unknown."""
    logarithm = torch.full_like(evidence.seen, CONSTANT)
    for name, power in EXPONENTS.items():
        logarithm += power * (getattr(evidence, name) + OFFSETS[name]).log()
    logarithm.clamp_(math.log(SMALLEST_MM), math.log(UNKNOWN_MM))
    return torch.lerp(
        torch.full_like(logarithm, math.log(UNKNOWN_MM)), logarithm, box_filter(evidence.seen)
    ).exp_()


def sample_uncertainty(uncertainty: Volume, points: np.ndarray) -> np.ndarray:
    """The uncertainty in mm at LPS points (N, 3): (N,). Outside the lattice: ``UNKNOWN_MM``."""
    points = np.asarray(points, dtype=float).reshape(-1, 3)
    index = torch.from_numpy(uncertainty.grid.to_index(points).T.reshape(3, -1, 1, 1))
    values = torch.from_numpy(uncertainty.array)[None].double()
    found = uncertainty.grid.sample(values, index).reshape(-1).numpy()
    return np.where(uncertainty.grid.contains(points), found, UNKNOWN_MM)


def write_uncertainty(path: str | Path, uncertainty: Volume) -> None:
    """Writes it as a compressed image, rounded to 1/64 mm: a third of the size, and no loss that
    means anything. Raises what SimpleITK raises."""
    import SimpleITK as sitk

    rounded = (np.round(uncertainty.array * 64) / 64).astype(np.float32)
    sitk.WriteImage(Volume(rounded, uncertainty.grid).to_sitk(), str(path), True)


def summarize_uncertainty(uncertainty: Volume, points: np.ndarray) -> dict[str, float]:
    """Median, 95th percentile, and percent above ``DOUBTFUL_MM`` at LPS points (N, 3), mm."""
    values = sample_uncertainty(uncertainty, points)
    return {
        "median": float(np.median(values)),
        "p95": float(np.percentile(values, 95)),
        f"above_{DOUBTFUL_MM:g}_mm_percent": float(100 * np.mean(values > DOUBTFUL_MM)),
    }


# --- the evidence -------------------------------------------------------------------------------


def _rivalry(
    fixed: torch.Tensor, warped: torch.Tensor, seen: torch.Tensor, check: Callable[[], None]
) -> torch.Tensor:
    """By what share of its cost the best of the 26 shifts by one voxel beats the field."""
    here = best = _cost(fixed, warped, seen)
    for shift in itertools.product((-1, 0, 1), repeat=3):
        if any(shift):
            check()
            best = torch.minimum(best, _cost(fixed, _shifted(warped, shift), seen))
    return box_filter((here - best) / (here + _COST_FLOOR), 2)


def _cost(fixed: torch.Tensor, warped: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    return box_filter((warped - fixed).square_().sum(dim=0).mul_(seen))


def _shifted(values: torch.Tensor, shift: tuple[int, ...]) -> torch.Tensor:
    """values(x + shift) for (C, Z, Y, X), borders replicated; steps along z, y, x."""
    for dim, step in enumerate(shift, start=1):
        if step:
            last = values.shape[dim] - 1
            places = (torch.arange(last + 1, device=values.device) + step).clamp_(0, last)
            values = values.index_select(dim, places)
    return values


def _looseness(
    fixed: torch.Tensor, warped: torch.Tensor, seen: torch.Tensor, check: Callable[[], None]
) -> torch.Tensor:
    """sqrt(trace(G^-1)) with G the structure tensor of the mean features, smoothed: voxels."""
    mean = (fixed + warped).mul_(0.5)
    steps = ((0, 0, 1), (0, 1, 0), (1, 0, 0))
    slopes = []
    for x, y, z in steps:
        check()
        slopes.append((_shifted(mean, (x, y, z)) - _shifted(mean, (-x, -y, -z))).mul_(0.5))

    def averaged(i: int, j: int) -> torch.Tensor:
        product = (slopes[i] * slopes[j]).sum(dim=0).mul_(seen)
        return box_filter(product + _DAMPING * (i == j), _WIDE)

    pairs = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
    a, b, c, d, e, f = (averaged(*pair) for pair in pairs)
    minors = (d * f - e * e) + (a * f - c * c) + (a * d - b * b)
    determinant = a * (d * f - e * e) - b * (b * f - c * e) + c * (b * e - c * d)
    return (minors / determinant.clamp_min(1e-12)).clamp_(0, 3 / _DAMPING).sqrt_()


def _sample_or_nothing(trust: torch.Tensor, displacement: torch.Tensor) -> torch.Tensor:
    """trust(x + u(x)), zero outside the grid: (Z, Y, X)."""
    inside = torch.ones_like(trust)
    for component, dim in enumerate((2, 1, 0)):
        n = trust.shape[dim]
        axis = torch.arange(n, device=trust.device, dtype=trust.dtype)
        position = displacement[component] + axis.view([-1 if k == dim else 1 for k in range(3)])
        inside *= (position >= -0.5) & (position <= n - 0.5)
    return warp(trust[None], displacement)[0].mul_(inside)
