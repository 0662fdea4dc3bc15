"""Measures and warps with any transform file, also one that other software made."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from . import quality
from .errors import InputError
from .field import jacobian_determinant, read_transform, sample_transform, transform_points
from .folding import folds_of
from .job import Job, read_inputs
from .landmarks import read_landmarks, write_landmarks
from .prepare import background_value, body_mask, detect_modality, normalize_intensity
from .progress import Progress
from .volume import Volume, read_labels, read_volume, write_image


def evaluate_files(
    fixed: str,
    moving: str,
    transform: str,
    fixed_landmarks: tuple[str, ...] = (),
    moving_landmarks: tuple[str, ...] = (),
    fixed_labels: str | None = None,
    moving_labels: str | None = None,
) -> dict:
    """Measures of a transform (fixed to moving, LPS mm) as a dictionary like ``result.json``.

    Landmarks: TRE and CPM before and after; labels: Dice, HD95, mean distance; always: folding and
    the Jacobian on the fixed grid. Raises a :class:`GlideRegError` with one sentence.
    """
    job = Job(
        fixed=fixed,
        moving=moving,
        output=".",
        fixed_landmarks=fixed_landmarks,
        moving_landmarks=moving_landmarks,
        fixed_labels=fixed_labels,
        moving_labels=moving_labels,
    )
    mapping = read_transform(transform)
    inputs = read_inputs(job, Progress())
    grid = inputs.fixed.grid
    modality = detect_modality(inputs.fixed)
    body = body_mask(normalize_intensity(inputs.fixed, modality), modality)
    field = sample_transform(mapping, grid)
    measures = quality.summarize_jacobian(jacobian_determinant(field.vectors, grid), body)
    measures.update(quality.summarize_folds(folds_of(mapping, field), body))
    if inputs.landmarks is not None:
        first, second = inputs.landmarks
        before = quality.landmark_errors(first, second)
        after = quality.landmark_errors(transform_points(mapping, first), second)
        measures.update(quality.landmark_summary(before, after))
    if inputs.labels is not None:
        first_labels, second_labels = inputs.labels
        unmoved = second_labels.resampled(grid, labels=True)
        warped = second_labels.resampled(grid, mapping, labels=True)
        if not first_labels.grid.is_close(grid, 1e-2):
            first_labels = first_labels.resampled(grid, labels=True)
        measures.update(
            quality.label_summary(first_labels.array, unmoved.array, warped.array, grid)
        )
    return {"schema": "glidereg-evaluation-1", "quality": measures}


def warp_file(
    image: str,
    transform: str,
    reference: str,
    output: str,
    labels: bool = False,
    background: float | None = None,
) -> None:
    """Resamples an image or label map through a transform onto the grid of ``reference``.

    Outside the image: ``background``, else -1024 HU for CT and the minimum for others (0 for
    labels). Integer images stay integers. Written whole or not at all.
    """
    mapping = read_transform(transform)
    source = read_labels(image) if labels else read_volume(image)
    grid = read_volume(reference).grid
    if background is None:
        background = 0.0 if labels else background_value(source, detect_modality(source))
    warped = source.resampled(grid, mapping, background, labels)
    if not labels and np.array_equal(source.array, np.round(source.array)):
        kind = np.int16 if np.abs(source.array).max() < 32768 else np.int32
        warped = Volume(np.round(warped.array).astype(kind), grid)
    write_image(Path(output), warped.to_sitk())


def warp_points_file(points: str, transform: str, output: str) -> int:
    """Carries the points of a landmark file through a transform; returns their number."""
    landmarks = read_landmarks(points)
    moved = transform_points(read_transform(transform), landmarks.points)
    if not np.isfinite(moved).all():
        raise InputError(f"'{transform}' sends points of '{points}' to infinity.")
    write_landmarks(output, moved, landmarks.labels)
    return len(moved)
