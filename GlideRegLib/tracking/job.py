"""One tracking from files to files: what ``glidereg track`` runs.

Writes what :mod:`.output` describes; without a given transform also everything that a registration
writes. All of it or none. As JSON with ``"task": "track"`` it is a job of the worker.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError, SettingsError
from ..job import Inputs, Job, check_output, read_inputs
from ..landmarks import read_landmarks
from ..progress import Progress
from ..settings import Settings
from ..volume import Volume, read_volume
from .dates import days_between
from .evaluation import position_quality
from .mapping import FileMapping, Mapping, SwappedMapping
from .masks import masks_of
from .nodules import NO_NODULES, Nodule, NoduleList, Point, as_point, read_nodules, with_identities
from .output import save_files, save_lists
from .pictures import WINDOW_HU, nodule_sheet
from .records import Tracking
from .track import TrackSettings, track

if TYPE_CHECKING:
    from ..result import Result

#: Seconds that the stages take at the most on small pairs.
_PLAN = {"read": 1.0, "track": 5.0, "pictures": 8.0, "save": 4.0}
#: The names that a registration gives to its transform, and to its expected error beside it.
_REGISTERED = ("transform.h5", "displacement.nii.gz")
_ERROR_FILE = "uncertainty.nii.gz"
#: What a sentence about a list without nodules says.
_EMPTY = re.compile("is empty|holds no points")


@dataclass(frozen=True)
class TrackJob:
    """Paths of the inputs, the output folder and the settings.

    ``prior`` says which image is the earlier scan, "moving" or "fixed". Its nodules must be given,
    those of the other image may. ``transform`` (fixed to moving, LPS mm, any ITK transform) is
    used as it is, with ``uncertainty``, an image of its expected error in mm over the fixed image,
    by default the one that a registration wrote beside it; without one the images are registered
    with ``registration``. ``reference``: a
    landmark file with the true places of the prior's nodules in the current image, row k for row k.

    The nodules of the current image may be the word "none": it was looked through and holds none,
    so that those of the prior are resolved. ``moving_identities`` and ``fixed_identities`` are
    nodules that are known already (identifier, LPS mm): found again in a list they keep their
    identity. ``outputs``: "files", or with a given transform "lists": nodules.csv, nodules.json
    and the masks.
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
    moving_identities: tuple[tuple[str, Point], ...] = ()
    fixed_identities: tuple[tuple[str, Point], ...] = ()
    outputs: str = "files"

    def to_json(self) -> str:
        """As text for the worker's ``job.json``."""
        return json.dumps({"task": "track", **asdict(self)}, indent=2)

    @classmethod
    def from_json(cls, text: str) -> TrackJob:
        """The inverse of :meth:`to_json`. Raises :class:`SettingsError` with one sentence."""
        try:
            data = dict(json.loads(text))
            data.pop("task", None)
            known = {f.name for f in fields(cls)}
            unknown = sorted(set(data) - known)
            missing = [name for name in ("fixed", "moving", "output") if not data.get(name)]
            if unknown or missing:
                raise SettingsError(
                    f"The tracking job lacks {', '.join(missing) or 'nothing'} and has the unknown "
                    f"names {', '.join(unknown) or 'none'}. Known are {', '.join(sorted(known))}."
                )
            data["registration"] = Settings.from_dict(data.get("registration") or {})
            data["settings"] = TrackSettings.from_dict(data.get("settings") or {})
            for name in ("moving_identities", "fixed_identities"):
                places = data.get(name) or ()
                data[name] = tuple((str(key), as_point(place)) for key, place in places)
            return cls(**data)
        except (TypeError, ValueError) as error:
            raise SettingsError(f"The tracking job is damaged ({error}).") from error

    def check(self) -> None:
        """Raises a :class:`GlideRegError` for what cannot be run, before anything is read."""
        if self.prior not in ("moving", "fixed"):
            raise SettingsError("The prior scan is either 'moving' or 'fixed'.")
        if self.outputs not in ("files", "lists"):
            raise SettingsError('The "outputs" of a tracking job are "files" or "lists".')
        if self.outputs == "lists" and self.transform is None:
            raise SettingsError("Lists alone are written only for a transform that is given.")
        if getattr(self, f"{self.prior}_nodules") in (None, NO_NODULES):
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
    dated, said = _dated(job)
    settings, window = _for_modality(dated, modality, current)
    with progress.stage("track"):
        check = _counting(progress, len(nodules[0]) + len(nodules[1] or ()))
        tracking = track(mapping, current, prior, *nodules, settings=settings, check=check)
        notes = (*tracking.notes, *said)
        tracking = replace(tracking, registration_prior=job.prior, notes=notes)
        if reference is not None:
            places = {n.identifier: as_point(p) for n, p in zip(nodules[0], reference, strict=True)}
            tracking = replace(tracking, quality=position_quality(tracking, places))
        maps, notes = masks_of(tracking, current.grid, prior.grid)
        tracking = replace(tracking, notes=(*tracking.notes, *notes))
    with progress.stage("pictures"):
        sheets = []
        for k, row in enumerate(tracking if job.outputs == "files" else ()):
            progress.update(k / len(tracking))
            sheets.append(nodule_sheet(row, mapping, current, prior, k + 1, window))
    with progress.stage("save"):
        if job.outputs == "lists":
            save_lists(job.output, tracking, maps)
        else:
            save_files(job.output, tracking, maps, sheets, result, inputs, progress)
    return tracking


def _counting(progress: Progress, nodules: int) -> Callable[[], None]:
    """What tracking calls between its steps: each nodule is predicted and measured."""
    steps = iter(range(2 * nodules))
    return lambda: progress.update(min(next(steps, 2 * nodules) / max(2 * nodules, 1), 1.0))


def _read_nodules(
    job: TrackJob, progress: Progress
) -> tuple[Sequence[Nodule], Sequence[Nodule] | None]:
    """The nodules of the prior, and those of the current image if they were given."""
    sides = ("moving", "fixed") if job.prior == "moving" else ("fixed", "moving")
    lists: list[Sequence[Nodule] | None] = []
    for side in sides:
        path = getattr(job, f"{side}_nodules")
        if path in (None, NO_NODULES):
            lists.append(None if path is None else ())
            continue
        found = _read_list(path, side == job.prior)
        for note in found.notes:
            progress.message(note)
        lists.append(with_identities(found.nodules, getattr(job, f"{side}_identities")))
    return lists[0] or (), lists[1]


def _dated(job: TrackJob) -> tuple[TrackSettings, tuple[str, ...]]:
    """The settings with the days between the scans: as given, else by their DICOM headers."""
    measure = job.settings.measure
    if measure.days is not None:
        return job.settings, ()
    current, prior = (job.fixed, job.moving)[:: 1 if job.prior == "moving" else -1]
    days, note = days_between(prior, current)
    settings = replace(job.settings, measure=replace(measure, days=days))
    return settings, (note,) if note else ()


def _read_list(path: str, of_prior: bool) -> NoduleList:
    """The nodules of a file; an empty one of the current image has a word of its own."""
    try:
        return read_nodules(path)
    except InputError as error:
        if of_prior or not _EMPTY.search(str(error)):
            raise
        text = f"{error} For a scan without nodules give the word {NO_NODULES}."
        raise InputError(text) from error


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

        path = job.uncertainty or _error_beside(job.transform, progress)
        errors = None if path is None else read_volume(path)
        return None, FileMapping(read_transform(job.transform), inputs.fixed.grid, errors)
    from ..pipeline import register

    result = register(inputs.fixed, inputs.moving, job.registration, progress)
    return result, result


def _error_beside(transform: str, progress: Progress) -> str | None:
    """The expected error that a registration of ours wrote beside its transform, if it did."""
    beside = Path(transform).with_name(_ERROR_FILE)
    if Path(transform).name not in _REGISTERED or not beside.is_file():
        return None
    progress.message("The expected error that the registration wrote beside its transform is used.")
    return str(beside)


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
