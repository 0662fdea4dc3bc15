"""Every kind of measure: its name in a table, unit, digits, and which direction is good."""

from __future__ import annotations

import math
from dataclasses import dataclass

NOT_MEASURED = "not measured"
#: The tables of a report, in order.
GROUPS = {
    "landmarks": "Landmarks",
    "structures": "Structures",
    "regularity": "Plausibility of the deformation",
    "consistency": "Consistency",
    "intensity": "Intensities (information only)",
}


@dataclass(frozen=True)
class Kind:
    """One kind of measure. ``better`` is "less", "more" or "" (neither: never graded by a limit
    in one direction). ``meaning`` explains it to a reader in one sentence."""

    title: str
    unit: str
    digits: int
    group: str
    better: str
    meaning: str

    def show(self, value: float | None) -> str:
        """The value with its unit, or "not measured"."""
        if value is None or not math.isfinite(value):
            return NOT_MEASURED
        text = f"{value:.{self.digits}f}"
        if value == 0:
            text = "0"
        elif float(text) == 0:  # a few folded voxels must not read as none
            text = f"{value:.2g}"
        return f"{text} {self.unit}".strip()


def _kinds(group: str, rows: dict[str, tuple[str, str, int, str, str]]) -> dict[str, Kind]:
    return {
        key: Kind(title, unit, digits, group, better, meaning)
        for key, (title, unit, digits, better, meaning) in rows.items()
    }


_SIDES = "positive to the left, to the back and to the head"
_FOLDED = "Jacobian 0 or less by one-sided differences, at a voxel or a node of the field in it"

#: Key of a measure -> what it is.
KINDS: dict[str, Kind] = {
    **_kinds(
        "landmarks",
        {
            "tre_mean": ("TRE, mean", "mm", 2, "less", "target registration error of landmarks"),
            "tre_median": ("TRE, median", "mm", 2, "less", "half of the landmarks lie closer"),
            "tre_p95": (
                "TRE, 95th percentile",
                "mm",
                2,
                "less",
                "95 % of the landmarks lie closer",
            ),
            "tre_max": ("TRE, maximum", "mm", 2, "less", "the worst landmark"),
        },
    ),
    **_kinds(
        "structures",
        {
            "dice": ("Dice", "", 3, "more", "overlap: 0 is none, 1 is complete"),
            "mean_distance": (
                "Mean distance to agreement",
                "mm",
                2,
                "less",
                "mean distance between both surfaces",
            ),
            "hd95": ("HD95", "mm", 2, "less", "95 % of each surface lie closer to the other"),
            "centroid_shift": ("Centroid shift", "mm", 2, "less", "distance of both centroids"),
            "centroid_lr": ("Centroid shift LR", "mm", 2, "", _SIDES),
            "centroid_ap": ("Centroid shift AP", "mm", 2, "", _SIDES),
            "centroid_si": ("Centroid shift SI", "mm", 2, "", _SIDES),
            "displacement_lr": ("Mean displacement LR", "mm", 2, "", _SIDES),
            "displacement_ap": ("Mean displacement AP", "mm", 2, "", _SIDES),
            "displacement_si": ("Mean displacement SI", "mm", 2, "", _SIDES),
            "volume_change": (
                "Volume change, contours",
                "%",
                1,
                "",
                "moving contour against fixed contour",
            ),
            "volume_change_jacobian": (
                "Volume change, Jacobian",
                "%",
                1,
                "",
                "the Jacobian integrated over the fixed contour",
            ),
            "volume_disagreement": (
                "Volume change, disagreement",
                "% points",
                1,
                "less",
                "distance between both volume changes",
            ),
            "structure_consistency_p95": (
                "There and back, 95 %",
                "mm",
                3,
                "less",
                "forward and the backward transform that was given",
            ),
            "structure_folding": (
                "Folded voxels",
                "%",
                4,
                "less",
                _FOLDED,
            ),
            "structure_jacobian_min": ("Jacobian, minimum", "", 3, "more", "0 or less is folded"),
            "structure_jacobian_p1": ("Jacobian, 1 %", "", 3, "", "1st percentile"),
            "structure_jacobian_p99": ("Jacobian, 99 %", "", 3, "", "99th percentile"),
        },
    ),
    **_kinds(
        "regularity",
        {
            "folding": ("Folded voxels", "%", 4, "less", _FOLDED),
            "folding_central": (
                "Folded voxels, central differences",
                "%",
                4,
                "less",
                "as Learn2Reg counts them: blind to folds between voxels",
            ),
            "jacobian_min": ("Jacobian, minimum", "", 3, "more", "0 or less is folded"),
            "jacobian_p1": ("Jacobian, 1 %", "", 3, "", "1st percentile"),
            "jacobian_p50": ("Jacobian, median", "", 3, "", "1 is no change of volume"),
            "jacobian_p99": ("Jacobian, 99 %", "", 3, "", "99th percentile"),
            "jacobian_max": ("Jacobian, maximum", "", 3, "", "largest local growth"),
            "largest_fold": (
                "Largest folded cluster",
                "mm³",
                1,
                "less",
                "connected folded voxels (26 neighbors), in the whole grid",
            ),
            "sd_log_jacobian": ("SD of log Jacobian", "", 4, "less", "J clipped to 1e-6"),
            "sd_log_jacobian_learn2reg": (
                "SD of log Jacobian, Learn2Reg",
                "",
                4,
                "less",
                "that challenge's own formula, std(log(J + 3)): it hides folding",
            ),
            "bending_energy": (
                "Bending energy",
                "1/mm²",
                7,
                "less",
                "mean of the squared second derivatives of the displacement",
            ),
            "harmonic_energy": (
                "Harmonic energy",
                "",
                4,
                "less",
                "mean of the squared first derivatives of the displacement",
            ),
            "displacement_mean": ("Displacement, mean", "mm", 2, "", "start included"),
            "displacement_max": ("Displacement, maximum", "mm", 2, "", "start included"),
        },
    ),
    **_kinds(
        "consistency",
        {
            "inverse_consistency_mean": ("There and back, mean", "mm", 3, "less", "two transforms"),
            "inverse_consistency_p95": ("There and back, 95 %", "mm", 3, "less", "two transforms"),
            "inverse_consistency_max": ("There and back, maximum", "mm", 3, "less", "the worst"),
            "numerical_inverse_p95": (
                "There and back by numerical inverse, 95 %",
                "mm",
                3,
                "less",
                "consistent by construction; folds are told by the Jacobian",
            ),
            "transitivity_mean": ("Over a third image, mean", "mm", 3, "less", "three transforms"),
            "transitivity_p95": ("Over a third image, 95 %", "mm", 3, "less", "three transforms"),
            "transitivity_max": ("Over a third image, maximum", "mm", 3, "less", "the worst"),
        },
    ),
    **_kinds(
        "intensity",
        {
            "correlation": ("Correlation (NCC)", "", 4, "", "of both images in the body"),
            "mutual_information": ("Mutual information", "nat", 4, "", "64 × 64 bins, in the body"),
            "mean_difference": ("Mean absolute difference", "", 1, "", "HU for CT, in the body"),
        },
    ),
}
