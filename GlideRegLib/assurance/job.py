"""One assessment from files to files: what ``glidereg assess`` and the worker run.

Writes ``assessment.json``, ``assessment.html`` and, if wanted, ``jacobian.nii.gz``: all or none.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np

from ..errors import InputError, SettingsError
from ..field import read_transform
from ..job import Job, check_output, read_inputs
from ..progress import Progress
from ..volume import Volume
from .assess import PLAN, Evidence, assess
from .labels import read_label_pairs
from .names import read_names
from .profile import Profile
from .records import Assessment
from .subject import Subject

#: What a job file says to be told from a registration.
TASK = "assess"
_PLAN = {"read": 1.0, **PLAN, "report": 6.0, "save": 1.0}
_LISTS = (
    "fixed_landmarks",
    "moving_landmarks",
    "more_fixed_labels",
    "more_moving_labels",
    "notes",
)


@dataclass(frozen=True)
class AssessJob:
    """Paths of the inputs, the output folder, and the profile.

    ``transform`` (fixed to moving, LPS mm), ``backward`` (moving to fixed), ``onward`` (moving to
    a third image) and ``direct`` (fixed to that) are ITK transforms or displacement fields of any
    software. Landmark files come in corresponding pairs. ``names`` is a CSV table of structures;
    those that overlap others come in further pairs of maps (``more_fixed_labels`` and
    ``more_moving_labels``; no label twice), or in segmentations (.seg.nrrd), which may overlap,
    bring names of their own and are paired by them when there is no table. Without a moving map
    ("" among further ones) only what needs no second contour is measured. ``profile`` is the name
    of a built-in one or a file.
    ``report`` writes assessment.html, ``jacobian`` jacobian.nii.gz (determinant on the fixed grid;
    jacobian.mha, which is larger and quicker, with ``quick``). ``notes`` are added to those of the
    assessment: what whoever wrote the files has to say about them.
    """

    fixed: str
    moving: str
    transform: str
    output: str
    fixed_landmarks: tuple[str, ...] = ()
    moving_landmarks: tuple[str, ...] = ()
    fixed_labels: str | None = None
    moving_labels: str | None = None
    names: str | None = None
    backward: str | None = None
    onward: str | None = None
    direct: str | None = None
    profile: str = "tg132"
    report: bool = True
    jacobian: bool = False
    more_fixed_labels: tuple[str, ...] = ()
    more_moving_labels: tuple[str, ...] = ()
    quick: bool = False
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """As text for ``job.json``."""
        return json.dumps({"task": TASK, **asdict(self)}, indent=2)

    @classmethod
    def from_json(cls, text: str) -> AssessJob:
        """From ``job.json``. Raises :class:`SettingsError` with one sentence when it is wrong."""
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise SettingsError(f"The job file is not valid JSON ({error}).") from error
        if not isinstance(data, dict) or data.pop("task", None) != TASK:
            raise SettingsError(f'A job of assessment is a JSON object with "task": "{TASK}".')
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(data) - known)
        required = ("fixed", "moving", "transform", "output")
        missing = [name for name in required if not data.get(name)]
        if unknown or missing:
            said = [f"lacks {', '.join(missing)}"] if missing else []
            said += [f"has unknown names: {', '.join(unknown)}"] if unknown else []
            raise SettingsError(
                f"The job file {'; '.join(said)}. Known are {', '.join(sorted(known))}."
            )
        for name in _LISTS:
            value = data.get(name) or ()
            data[name] = (value,) if isinstance(value, str) else tuple(value)
        return cls(**data)


def run_assess_job(job: AssessJob, progress: Progress | None = None) -> Assessment:
    """Reads, measures, grades, draws and writes; returns the assessment.

    Raises a :class:`GlideRegError` with one sentence.
    """
    progress = progress or Progress()
    progress.set_plan(_PLAN)
    if job.report:  # what only the page needs is missed before the long work, not after it
        from ..report import page_template
        from ..report.assurance import PAGE, assessment_page

        page_template(PAGE)
    profile = Profile.named(job.profile)
    check_output(Path(job.output))
    with progress.stage("read"):
        subject = read_subject(job, progress)
    assessment, evidence = assess(subject, profile, progress)
    assessment = replace(assessment, notes=(*assessment.notes, *job.notes))
    page = None
    if job.report:
        with progress.stage("report"):
            page = assessment_page(assessment, subject, evidence, progress.update)
    with progress.stage("save"):
        _save(job, assessment, subject, evidence, page, progress)
    return assessment


def read_subject(job: AssessJob, progress: Progress) -> Subject:
    """Reads and checks every file of a job, before anything long begins."""
    names = {} if job.names is None else read_names(job.names)
    transforms = {
        role: None if path is None else read_transform(path)
        for role, path in (
            ("transform", job.transform),
            ("backward", job.backward),
            ("onward", job.onward),
            ("direct", job.direct),
        )
    }
    pair = Job(
        fixed=job.fixed,
        moving=job.moving,
        output=job.output,
        fixed_landmarks=job.fixed_landmarks,
        moving_landmarks=job.moving_landmarks,
    )
    inputs = read_inputs(pair, progress)
    pairs, names = _read_structures(job, names, inputs.moving, progress)
    subject = Subject(
        inputs.fixed,
        inputs.moving,
        landmarks=inputs.landmarks,
        labels=pairs[0] if pairs else None,
        names=names,
        more_labels=tuple(pairs[1:]),
        **transforms,
    )
    subject.check()
    return subject


def _read_structures(
    job: AssessJob, names: dict[int, str], moving: Volume, progress: Progress
) -> tuple[list[tuple[Volume, Volume]], dict[int, str]]:
    """All pairs of label maps, and the names of structures by label."""
    if job.fixed_labels is None and (job.moving_labels or job.more_fixed_labels):
        raise InputError("Only moving labels were given; give the fixed labels too.")
    if len(job.more_fixed_labels) != len(job.more_moving_labels):
        raise InputError("Further label maps come in pairs, one fixed and one moving.")
    first = [] if job.fixed_labels is None else [(job.fixed_labels, job.moving_labels)]
    more = zip(job.more_fixed_labels, job.more_moving_labels, strict=True)
    return read_label_pairs((*first, *more), names, moving.grid, progress.check)


def _save(
    job: AssessJob,
    assessment: Assessment,
    subject: Subject,
    evidence: Evidence,
    page: str | None,
    progress: Progress,
) -> None:
    """Writes everything, whole or not at all."""
    import SimpleITK as sitk

    from ..result import whole_folder

    with whole_folder(job.output) as partial:
        text = json.dumps(_finite(assessment.to_dict()), indent=2, allow_nan=False)
        (partial / "assessment.json").write_text(text + "\n", encoding="utf-8")
        if page is not None:
            (partial / "assessment.html").write_text(page, encoding="utf-8")
        progress.check()
        if job.jacobian:
            image = evidence.jacobian(subject).to_sitk()
            name = "jacobian.mha" if job.quick else "jacobian.nii.gz"
            sitk.WriteImage(image, str(partial / name), not job.quick)
        progress.check()


def _finite(data: object) -> object:
    """Plain values with None in the place of numbers that JSON does not know."""
    if isinstance(data, float):
        return data if np.isfinite(data) else None
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return data
