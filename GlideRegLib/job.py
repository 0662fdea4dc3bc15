"""One registration from files to files: what the command line and the worker both run."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy as np

from .errors import InputError, OutputError, SettingsError
from .landmarks import read_landmark_pair
from .progress import Progress
from .settings import Settings
from .volume import Volume, read_labels, read_volume

#: Stages around the registration itself, seconds they take at the most on small pairs.
_PLAN = {"read": 1.0, "report": 4.0, "save": 4.0}


_POINT_FILES = ("fixed_landmarks", "moving_landmarks", "fixed_constraints", "moving_constraints")


@dataclass(frozen=True)
class Job:
    """Paths of the inputs, the output folder and the settings.

    Landmark files come in corresponding pairs; several pairs are joined. ``*_landmarks`` measure
    the result, ``*_constraints`` guide the registration. ``sliding_mask``: a label map in the fixed
    frame; tissue slides where labels meet. ``outputs``: "files" (all
    that :meth:`Result.save` writes, and report.html) or "images" (only what another program needs
    to go on: :meth:`Result.save_images`, uncompressed and quick). ``jacobian`` adds
    jacobian.nii.gz to the files.
    """

    fixed: str
    moving: str
    output: str
    settings: Settings = field(default_factory=Settings)
    fixed_mask: str | None = None
    moving_mask: str | None = None
    sliding_mask: str | None = None
    fixed_landmarks: tuple[str, ...] = ()
    moving_landmarks: tuple[str, ...] = ()
    fixed_constraints: tuple[str, ...] = ()
    moving_constraints: tuple[str, ...] = ()
    fixed_labels: str | None = None
    moving_labels: str | None = None
    jacobian: bool = False
    outputs: str = "files"

    def to_json(self) -> str:
        """As text for ``job.json``."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Job:
        """From ``job.json``. Raises :class:`SettingsError` with one sentence when it is wrong."""
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise SettingsError(f"The job file is not valid JSON ({error}).") from error
        if not isinstance(data, dict):
            raise SettingsError("The job file must hold one JSON object.")
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(data) - known)
        missing = [name for name in ("fixed", "moving", "output") if not data.get(name)]
        if unknown or missing:
            raise SettingsError(
                "The job file "
                + "; ".join(
                    ([f"lacks {', '.join(missing)}"] if missing else [])
                    + ([f"has unknown names: {', '.join(unknown)}"] if unknown else [])
                )
                + f". Known are {', '.join(sorted(known))}."
            )
        if data.get("outputs", "files") not in ("files", "images"):
            raise SettingsError('The "outputs" of a job are "files" or "images".')
        data["settings"] = Settings.from_dict(data.get("settings") or {})
        for name in known & set(_POINT_FILES):
            value = data.get(name) or ()
            data[name] = (value,) if isinstance(value, str) else tuple(value)
        return cls(**data)


@dataclass(frozen=True)
class Inputs:
    """Everything that was read for a job."""

    fixed: Volume
    moving: Volume
    fixed_mask: Volume | None
    moving_mask: Volume | None
    landmarks: tuple[np.ndarray, np.ndarray] | None
    labels: tuple[Volume, Volume] | None
    constraints: tuple[np.ndarray, np.ndarray] | None = None
    sliding_labels: Volume | None = None


def run_job(job: Job, progress: Progress | None = None) -> dict:
    """Reads, registers, measures and writes; returns the content of ``result.json``.

    Files in ``job.output``: see :class:`Job`. All or none are written.
    Raises a :class:`GlideRegError` with one sentence.
    """
    progress = progress or Progress()
    from .methods import find

    job.settings.check()
    find(job.settings.method).require(job.settings.method_options)
    check_output(Path(job.output))
    with progress.stage("read"):
        inputs = read_inputs(job, progress)
    from .pipeline import register

    result = register(
        inputs.fixed,
        inputs.moving,
        job.settings,
        progress,
        inputs.fixed_mask,
        inputs.moving_mask,
        inputs.constraints,
        inputs.sliding_labels,
    )
    with progress.stage("report"):
        errors = None
        if inputs.landmarks is not None:
            result.report["quality"].update(result.landmark_quality(*inputs.landmarks))
            errors = result.landmark_errors(*inputs.landmarks)
        progress.update(0.2)
        if inputs.labels is not None:
            result.report["quality"].update(result.label_quality(*inputs.labels))
        progress.update(0.4)
        html = None
        if job.outputs == "files":
            from .report import build_report

            warped = result.warp(inputs.moving)
            progress.update(0.5)
            html = build_report(
                result, inputs.fixed, inputs.moving, warped, errors=errors, labels=inputs.labels
            )
    with progress.stage("save"):
        if html is None:
            result.save_images(job.output, inputs.moving, progress.check)
        else:
            extra = {"report.html": html}
            result.save(job.output, inputs.moving, extra, progress.check, job.jacobian)
    return result.report


def read_inputs(job: Job, progress: Progress) -> Inputs:
    """Reads and checks every file that a job names, before anything long begins."""
    landmarks = _read_landmarks("landmark", job.fixed_landmarks, job.moving_landmarks, progress)
    guides = (job.fixed_constraints, job.moving_constraints)
    constraints = _read_landmarks("constraint", *guides, progress)
    labels = _paired("labels", job.fixed_labels, job.moving_labels)
    fixed, moving = read_volume(job.fixed), read_volume(job.moving)
    progress.check()
    for role, volume in (("fixed", fixed), ("moving", moving)):
        for note in volume.notes:
            progress.message(f"{role} image: {note}", level="warning")
    masks = [read_labels(p) if p else None for p in (job.fixed_mask, job.moving_mask)]
    progress.check()
    pair = (read_labels(labels[0]), read_labels(labels[1])) if labels else None
    _warn_outside(landmarks, fixed, moving, progress)
    if constraints is not None:  # said before anything long begins
        from .constraints import LandmarkConstraints

        LandmarkConstraints.checked(constraints, fixed.grid, moving.grid)
    sliding = read_labels(job.sliding_mask) if job.sliding_mask else None
    return Inputs(fixed, moving, *masks, landmarks, pair, constraints, sliding)


def check_output(folder: Path) -> None:
    """Raises :class:`OutputError` when results could not be written there; changes nothing."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"The output '{folder}' is a file; give a folder.")
    existing = folder
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(
            f"The output folder '{folder}' cannot be written; choose another one or its rights."
        )


def _read_landmarks(
    what: str, fixed_files: Sequence[str], moving_files: Sequence[str], progress: Progress
) -> tuple[np.ndarray, np.ndarray] | None:
    """The points (N, 3) of all files, LPS mm; None without files."""
    if len(fixed_files) != len(moving_files):
        raise InputError(
            f"There are {len(fixed_files)} fixed and {len(moving_files)} moving {what} files; "
            "give them in corresponding pairs."
        )
    fixed, moving = [], []
    for pair in zip(fixed_files, moving_files, strict=True):
        first, second = read_landmark_pair(*pair)
        for note in (*first.notes, *second.notes):
            progress.message(note)
        fixed.append(first.points)
        moving.append(second.points)
    return (np.vstack(fixed), np.vstack(moving)) if fixed else None


def _paired(what: str, fixed: str | None, moving: str | None) -> tuple[str, str] | None:
    if bool(fixed) != bool(moving):
        given, lacking = ("fixed", "moving") if fixed else ("moving", "fixed")
        raise InputError(f"Only {given} {what} were given; give the {lacking} {what} too.")
    return (fixed, moving) if fixed and moving else None


def _warn_outside(
    landmarks: tuple[np.ndarray, np.ndarray] | None,
    fixed: Volume,
    moving: Volume,
    progress: Progress,
) -> None:
    """Landmarks outside their image usually mean RAS taken for LPS, or swapped files."""
    if landmarks is None:
        return
    for role, points, volume in zip(("fixed", "moving"), landmarks, (fixed, moving), strict=True):
        outside = int((~volume.grid.contains(points)).sum())
        if outside:
            progress.message(
                f"{outside} of {len(points)} {role} landmarks lie outside the {role} image; "
                "check their frame (LPS or RAS) and that the files are not swapped.",
                level="warning",
            )
