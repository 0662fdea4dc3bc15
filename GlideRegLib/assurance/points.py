"""Measures at points: landmark errors, there and back, and over a third image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy import ndimage

from .. import quality
from ..errors import InputError
from ..field import transform_points
from ..tracking.mapping import FileMapping
from .records import Measure
from .structures import NOT_IN_FIXED
from .subject import Subject, as_place

#: Points of the body that are carried there and back; by two transforms, and by Newton's method.
_POINTS, _INVERTED = 20_000, 3_000
#: Points of a structure that are carried there and back, about.
_PER_STRUCTURE = 2_000
#: Resamples of the bootstrap, its seed, and the fewest landmarks for which an interval is stated.
_RESAMPLES, _SEED, _FEWEST = 9999, 0, 5
#: Where less than this share of a region has partners, its points tell too little of it.
_LEAST_SHARE = 0.5
_IS_INVERSE = (
    "the backward transform is a numerical inverse of the transform: it goes back by construction, "
    "and verifies nothing; give one of a registration of its own"
)


def landmark_errors(subject: Subject) -> dict[str, np.ndarray] | None:
    """Errors (N,) in mm "before" (coordinates as they stand) and "after"; None without any."""
    if subject.landmarks is None:
        return None
    fixed, moving = subject.landmarks
    return {
        "before": quality.landmark_errors(fixed, moving),
        "after": quality.landmark_errors(transform_points(subject.transform, fixed), moving),
    }


def landmark_measures(subject: Subject, errors: dict[str, np.ndarray] | None) -> list[Measure]:
    """TRE: mean with its 95 % interval, median, 95th percentile, and the worst with its place."""
    if errors is None or not len(errors["after"]):
        return []
    before, after = errors["before"], errors["after"]
    worst = as_place(subject.landmarks[0][int(after.argmax())])
    n = len(after)
    interval = bootstrap_interval(after)
    note = "95 % interval: bootstrap (BCa)" if interval else "too few landmarks for an interval"
    return [
        Measure(
            "tre_mean",
            "landmarks",
            float(after.mean()),
            float(before.mean()),
            interval,
            n,
            note=note,
        ),
        Measure("tre_median", "landmarks", float(np.median(after)), float(np.median(before)), n=n),
        Measure("tre_p95", "landmarks", *(float(np.percentile(e, 95)) for e in (after, before))),
        Measure("tre_max", "landmarks", float(after.max()), float(before.max()), n=n, place=worst),
    ]


def bootstrap_interval(errors: np.ndarray) -> tuple[float, float] | None:
    """95 % interval of the mean of errors (N,), in their unit: bias-corrected and accelerated
    bootstrap, seeded. Errors are skewed; Student's t would be too narrow on the side that matters.
    None for fewer than five.

    Source: Efron, J Am Stat Assoc 82, 1987; ``scipy.stats.bootstrap``.
    """
    from scipy import stats

    errors = np.asarray(errors, dtype=float)
    if len(errors) < _FEWEST:
        return None
    if np.ptp(errors) < 1e-12:
        return float(errors[0]), float(errors[0])
    found = stats.bootstrap(
        (errors,),
        np.mean,
        n_resamples=_RESAMPLES,
        batch=max(1, 2_000_000 // len(errors)),
        random_state=np.random.default_rng(_SEED),
    )
    interval = found.confidence_interval
    return float(interval.low), float(interval.high)


def consistency_measures(
    subject: Subject, update: Callable[[float], None] = lambda share: None
) -> list[Measure]:
    """There and back (mm): with the given backward transform; always by inverting the transform
    numerically, which is consistent by construction (where it folds, one of several inverses is
    found). A backward transform that is such an inverse is not measured. Over a third image (mm),
    if its transforms were given.

    A sanity check, no accuracy. ``update`` may raise to cancel.
    """
    measures = []
    if subject.backward_is_inverse:
        keys = (f"inverse_consistency_{key}" for key in ("mean", "p95", "max"))
        measures += [Measure(key, "body", None, note=_IS_INVERSE) for key in keys]
    elif subject.backward is not None:
        points = subject.body_points(_POINTS)
        there = transform_points(subject.transform, points)
        back = transform_points(subject.backward, there)
        note = "from the backward transform that was given; says something only if that comes from "
        note += "a registration of its own"
        share = subject.partner_share
        measures += _summary("inverse_consistency", points, back - points, note, share)
    update(0.3)
    measures.append(_numerical_inverse(subject))
    update(0.8)
    if subject.onward is not None and subject.direct is not None:
        points = subject.body_points(_POINTS)
        over = transform_points(subject.onward, transform_points(subject.transform, points))
        straight = transform_points(subject.direct, points)
        note = "fixed to moving to third image, against fixed to third image"
        measures += _summary("transitivity", points, over - straight, note, subject.partner_share)
    return measures


def _numerical_inverse(subject: Subject) -> Measure:
    """There and back by inverting the transform itself; not measured when it has no inverse."""
    key = "numerical_inverse_p95"
    points = subject.body_points(_INVERTED)
    mapping = FileMapping(subject.transform, subject.fixed.grid)
    try:
        back = mapping.inverse_points(transform_points(subject.transform, points))
    except InputError as error:  # no fault of the files, but a finding
        return Measure(key, "body", None, note=str(error))
    note = "inverted numerically (Newton): checks the arithmetic, not folds and not accuracy"
    p95 = _summary("inverse_consistency", points, back - points, note, subject.partner_share)[1]
    return replace(p95, key=key)


def structure_consistency(
    subject: Subject, update: Callable[[float], None] = lambda share: None
) -> list[Measure]:
    """There and back in every structure of the fixed image, 95th percentile in mm, at up to 2000 of
    its voxels whose partners lie in the moving image; empty without a backward transform."""
    if subject.backward is None or subject.labels is None:
        return []
    count = len(subject.layers)
    return [
        measure
        for j, layer in enumerate(subject.layers)
        for measure in _layer_consistency(
            layer, subject.backward_is_inverse, lambda share, j=j: update((j + share) / count)
        )
    ]


def _layer_consistency(
    subject: Subject, inverted: bool, update: Callable[[float], None]
) -> list[Measure]:
    measures, labels = [], subject.fixed_labels
    boxes = ndimage.find_objects(labels)
    for label, name in subject.structure_names().items():
        box = boxes[label - 1] if label <= len(boxes) else None
        if box is None or inverted:
            note = _IS_INVERSE if inverted else NOT_IN_FIXED
            measures.append(Measure("structure_consistency_p95", name, None, note=note))
            continue
        index = np.argwhere(labels[box] == label)
        index = index[:: max(1, len(index) // _PER_STRUCTURE)] + [s.start for s in box]
        points = subject.fixed.grid.to_physical(index[:, ::-1])
        there = transform_points(subject.transform, points)
        inside = subject.moving.grid.contains(there)
        gaps = transform_points(subject.backward, there[inside]) - points[inside]
        share = float(inside.mean())
        found = _summary("inverse_consistency", points[inside], gaps, "", share, "it")
        p95, worst = found[1], found[2]
        measures.append(
            replace(p95, key="structure_consistency_p95", region=name, place=worst.place)
        )
        update(label / len(boxes))
    return measures


def _summary(
    kind: str,
    points: np.ndarray,
    gaps: np.ndarray,
    note: str,
    share: float,
    whole: str = "the body",
) -> list[Measure]:
    """Mean, 95th percentile and maximum of the lengths of gaps (N, 3) at points (N, 3), mm;
    ``share`` of the ``whole`` has partners in the moving image."""
    if not len(points):
        note = f"no part of {whole} lies in the moving image"
        return [Measure(f"{kind}_{key}", "body", None, note=note) for key in ("mean", "p95", "max")]
    errors = np.linalg.norm(gaps, axis=1)
    place, n = as_place(points[int(errors.argmax())]), len(errors)
    few = share < _LEAST_SHARE
    if few:
        said = f"only {100 * share:.0f} % of {whole} lies in the moving image"
        note = f"{note}; {said}".removeprefix("; ")
    values = {
        "mean": float(errors.mean()),
        "p95": float(np.percentile(errors, 95)),
        "max": float(errors.max()),
    }
    return [
        Measure(
            f"{kind}_{key}",
            "body",
            value,
            n=n,
            place=place if key == "max" else None,
            note=note,
            doubtful=few,
        )
        for key, value in values.items()
    ]
