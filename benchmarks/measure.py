"""How good a displacement is: the same code for every method."""

from __future__ import annotations

import SimpleITK as sitk

from benchmarks.pairs import StartedPair
from GlideRegLib import quality
from GlideRegLib.field import DisplacementField
from GlideRegLib.geometry import transform_points


def measure(pair: StartedPair, displacement: sitk.Image | None) -> dict:
    """TRE at the native landmarks and folding of the total map p -> start(p + u(p)).

    The displacement (None: zero) lives on the common grid; beyond it it fades out, so that no
    method folds where its grid ends. Folding is counted on the native fixed grid, in percent.
    """
    if displacement is None:
        field = DisplacementField.zeros(pair.common)
    else:
        field = DisplacementField.from_sitk(displacement)
    field = field.with_zero_border(pair.grid)
    mapped = transform_points(pair.start, field.transform_points(pair.fixed_points))
    errors = quality.landmark_errors(mapped, pair.moving_points)
    tre = quality.summarize_errors(errors)
    jacobian = quality.sample_jacobian(field, pair.start, pair.grid)
    folding = quality.summarize_jacobian(jacobian, pair.body)["folding_percent"]
    return {
        "tre_mean": tre["mean"],
        "tre_median": tre["median"],
        "tre_p95": tre["p95"],
        "landmarks": tre["n"],
        "folding_body": folding["body"],
        "folding_grid": folding["grid"],
    }
