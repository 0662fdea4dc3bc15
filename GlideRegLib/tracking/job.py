"""One tracking from files to files: what ``glidereg track`` runs.

Writes ``nodules.csv``, ``nodules.json``, ``report.html`` and a picture per nodule; without a given
transform also everything that a registration writes. All of them or none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError, SettingsError
from ..job import Inputs, Job, check_output, read_inputs
from ..landmarks import read_landmarks
from ..progress import Progress
from ..settings import Settings
from ..volume import Volume, read_volume
from .evaluation import position_quality
from .mapping import FileMapping, Mapping, SwappedMapping
from .nodules import Nodule, as_point, read_nodules
from .pictures import WINDOW_HU, nodule_sheet
from .records import Tracking
from .track import TrackSettings, track

if TYPE_CHECKING:
    from ..result import Result

#: Seconds that the stages take at the most on small pairs.
_PLAN = {"read": 1.0, "track": 5.0, "pictures": 8.0, "save": 4.0}


@dataclass(frozen=True)
class TrackJob:
    """Paths of the inputs, the output folder and the settings.

    ``prior`` says which image is the earlier scan, "moving" or "fixed". Its nodules must be given,
    those of the other image may. ``transform`` (fixed to moving, LPS mm, any ITK transform) is
    used as it is, with ``uncertainty``, an image of its expected error in mm over the fixed image;
    without one the images are registered with ``registration``. ``reference``: a
    landmark file with the true places of the prior's nodules in the current image, row k for row k.
    """

    fixed: str
    moving: str
    output: str
    moving_nodules: str | None = None
    fixed_nodules: str | None = None
    transform: str | None = None
    uncertainty: str | None = None
    prior: str = "moving"
    reference: str | None = None
    registration: Settings = field(default_factory=Settings)
    settings: TrackSettings = field(default_factory=TrackSettings)

    def check(self) -> None:
        """Raises a :class:`GlideRegError` for what cannot be run, before anything is read."""
        if self.prior not in ("moving", "fixed"):
            raise SettingsError("The prior scan is either 'moving' or 'fixed'.")
        if getattr(self, f"{self.prior}_nodules") is None:
            raise InputError(
                f"The nodules of the prior scan are missing; give --{self.prior}-nodules."
            )
        self.settings.check()
        if self.transform is None:
            self.registration.check()
            if self.uncertainty is not None:
                raise InputError("An uncertainty image belongs to a transform; give both.")
        check_output(Path(self.output))


def run_track_job(job: TrackJob, progress: Progress | None = None) -> Tracking:
    """Reads, registers if no transform is given, tracks, draws and writes; returns the tracking.

    Raises a :class:`GlideRegError` with one sentence.
    """
    progress = progress or Progress()
    job.check()
    if job.transform is not None:
        progress.set_plan(_PLAN)
    with progress.stage("read"):
        pair = Job(job.fixed, job.moving, job.output, job.registration)
        inputs = read_inputs(pair, progress)
        nodules = _read_nodules(job, progress)
        reference = None if job.reference is None else read_landmarks(job.reference).points
        _check_reference(reference, nodules[0])
    result, mapping = _mapping(job, inputs, progress)
    modality = result.modality if result is not None else _modality(inputs.fixed)
    prior, current = inputs.moving, inputs.fixed
    if job.prior == "fixed":
        mapping, prior, current = SwappedMapping(mapping), current, prior
    settings, window = _for_modality(job.settings, modality, current)
    with progress.stage("track"):
        tracking = track(mapping, current, prior, *nodules, settings=settings, check=progress.check)
        if reference is not None:
            places = {n.identifier: as_point(p) for n, p in zip(nodules[0], reference, strict=True)}
            tracking = replace(tracking, quality=position_quality(tracking, places))
    with progress.stage("pictures"):
        sheets = []
        for k, row in enumerate(tracking):
            progress.update(k / len(tracking))
            sheets.append(nodule_sheet(row, mapping, current, prior, k + 1, window))
    with progress.stage("save"):
        _save(job.output, tracking, sheets, result, inputs, progress)
    return tracking


def _read_nodules(
    job: TrackJob, progress: Progress
) -> tuple[Sequence[Nodule], Sequence[Nodule] | None]:
    """The nodules of the prior, and those of the current image if they were given."""
    sides = ("moving", "fixed") if job.prior == "moving" else ("fixed", "moving")
    lists: list[Sequence[Nodule] | None] = []
    for side in sides:
        path = getattr(job, f"{side}_nodules")
        found = None if path is None else read_nodules(path)
        for note in found.notes if found is not None else ():
            progress.message(note)
        lists.append(None if found is None else found.nodules)
    return lists[0] or (), lists[1]


def _check_reference(reference: np.ndarray | None, priors: Sequence[Nodule]) -> None:
    if reference is not None and len(reference) != len(priors):
        raise InputError(
            f"The reference holds {len(reference)} points for {len(priors)} nodules; row k of one "
            "must belong to row k of the other."
        )


def _mapping(job: TrackJob, inputs: Inputs, progress: Progress) -> tuple[Result | None, Mapping]:
    """The registration's result, if there is one, and what carries points."""
    if job.transform is not None:
        from ..field import read_transform

        errors = None if job.uncertainty is None else read_volume(job.uncertainty)
        return None, FileMapping(read_transform(job.transform), inputs.fixed.grid, errors)
    from ..pipeline import register

    result = register(inputs.fixed, inputs.moving, job.registration, progress)
    return result, result


def _modality(fixed: Volume) -> str:
    from ..prepare import detect_modality

    return detect_modality(fixed)


def _for_modality(
    settings: TrackSettings, modality: str, current: Volume
) -> tuple[TrackSettings, tuple[float, float]]:
    """Settings and display window: HU ranges for CT, percentiles of the image for others."""
    if modality == "ct":
        return settings, WINDOW_HU
    low, high = (float(v) for v in np.percentile(current.array, (1, 99.5)))
    window = (low, max(high, low + 1e-3))
    return replace(settings, refine=replace(settings.refine, values=window)), window


def _save(
    output: str,
    tracking: Tracking,
    sheets: list[bytes],
    result: Result | None,
    inputs: Inputs,
    progress: Progress,
) -> None:
    """Writes everything, whole or not at all."""
    from ..report.nodules import nodule_page, nodule_section
    from ..result import whole_folder
    from .files import tracking_csv, tracking_json

    names = [f"nodule-{k:02d}.jpg" for k in range(1, len(sheets) + 1)]
    section = nodule_section(tracking, sheets)
    with whole_folder(output) as partial:
        if result is None:
            (partial / "report.html").write_text(nodule_page(section), encoding="utf-8")
        else:
            from ..report import build_report

            warped = result.warp(inputs.moving)
            page = build_report(result, inputs.fixed, inputs.moving, warped, nodules=section)
            result.save(partial, inputs.moving, {"report.html": page}, progress.check)
        for name, sheet in zip(names, sheets, strict=True):
            (partial / name).write_bytes(sheet)
        (partial / "nodules.csv").write_text(tracking_csv(tracking, names), encoding="utf-8")
        (partial / "nodules.json").write_text(tracking_json(tracking), encoding="utf-8")
        progress.check()
