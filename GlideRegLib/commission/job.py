"""One commissioning from a CT to files: what ``glidereg commission`` and the worker run."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .. import __version__
from ..errors import SettingsError
from ..job import check_output
from ..jobfile import as_job_text, job_values
from ..pipeline import register
from ..progress import Progress, ProgressEvent
from ..provenance import shareable_settings
from ..redaction import without_names_in
from ..result import NOTICE, whole_folder
from ..settings import Settings
from ..volume import Volume, read_volume
from .assurance import asked_profile, assess_case
from .cases import CASES, KnownCase, make_case, usable_ct
from .measures import AIR_HU, NOT_COMPARED, Limits, add_assessment, overall, summarize_case

SCHEMA = "glidereg-commission-1"
#: What a job file says to be told from a registration.
TASK = "commission"


@dataclass(frozen=True)
class CommissionJob:
    """The CT, the output folder, the settings to commission, the cases and the limits of the
    errors against the truth. ``profile`` (a name or a file) grades the other measures.

    ``report`` writes report.html, which needs matplotlib and jinja2.
    """

    image: str
    output: str
    settings: Settings = field(default_factory=Settings)
    cases: tuple[str, ...] = tuple(CASES)
    limits: Limits = field(default_factory=Limits)
    seed: int = 0
    report: bool = True
    profile: str = "tg132"

    def to_json(self) -> str:
        """As text for the worker's ``job.json``."""
        return as_job_text(TASK, self)

    @classmethod
    def from_json(cls, text: str) -> CommissionJob:
        """The inverse of :meth:`to_json`. Raises :class:`SettingsError` with one sentence."""
        values = job_values(text, TASK, cls)
        values["settings"] = Settings.from_dict(values.get("settings") or {})
        if isinstance(values.get("cases", ()), str):
            values["cases"] = (values["cases"],)
        try:
            values["limits"] = Limits(**(values.get("limits") or {}))
        except TypeError as error:
            names = ", ".join(asdict(Limits()))
            raise SettingsError(f"The limits of a commissioning are {names}.") from error
        return cls(**values)

    def check(self) -> None:
        """Raises a :class:`GlideRegError` for what cannot be run, before anything is read."""
        unknown = sorted(set(self.cases) - set(CASES))
        if unknown or not self.cases:
            raise SettingsError(
                f"There is no case '{', '.join(unknown)}'; choose from {', '.join(CASES)}."
            )
        self.settings.check()
        asked_profile(self.profile)
        check_output(Path(self.output))


def run_commission_job(job: CommissionJob, progress: Progress | None = None) -> dict:
    """Makes the known pairs, registers them, measures, and writes ``commission.json``,
    ``report.html`` and ``error_CASE.nii.gz`` (mm, on the CT's grid as far as it is seen by both
    images; -1 where nothing was compared), all or none; returns the content of the first.

    Raises a :class:`GlideRegError` with one sentence; MR is refused.
    """
    import SimpleITK as sitk

    progress = progress or Progress()
    job.check()
    if job.report:  # what only the page needs is missed before the long work, not after it
        from ..report.commission import case_pictures, commission_page
    names = [name for name in CASES if name in job.cases]
    progress.set_plan({"read": 1.0, "cases": 60.0 * len(names), "save": 1.0})
    with progress.stage("read"):
        source = read_volume(job.image)
        image, notes = usable_ct(source)
    summaries, pictures = [], []
    with whole_folder(job.output) as partial:
        with progress.stage("cases"):
            for number, name in enumerate(names):
                share = _Share(progress, number, len(names))
                case, summary, errors = _run_case(name, image, job, share)
                summaries.append(summary)
                if job.report:
                    pictures.append(case_pictures(case, errors.array, job.limits.largest_mm))
                path = partial / f"error_{name}.nii.gz"
                sitk.WriteImage(errors.to_sitk(), str(path), True)
        with progress.stage("save"):
            report = _report(job, source, (*source.notes, *notes), summaries)
            text = json.dumps(report, indent=2, allow_nan=False)
            (partial / "commission.json").write_text(text + "\n", encoding="utf-8")
            if job.report:
                page = commission_page(report, pictures)
                (partial / "report.html").write_text(page, encoding="utf-8")
            progress.check()
    return report


class _Share:
    """One case's part of the whole run's progress."""

    def __init__(self, progress: Progress, number: int, count: int) -> None:
        self._progress, self._number, self._count = progress, number, count

    def update(self, fraction: float) -> None:
        self._progress.update((self._number + fraction) / self._count)

    def inner(self, start: float, stop: float) -> Progress:
        """For work that plans its own stages: it fills these shares of the case."""

        def listen(event: ProgressEvent) -> None:
            if event.kind == "progress":
                self.update(start + (stop - start) * event.fraction)

        return Progress(listen, self._progress.cancel_wanted)


def _run_case(
    name: str, image: Volume, job: CommissionJob, share: _Share
) -> tuple[KnownCase, dict, Volume]:
    """The pair, its measures, and its error map."""
    share.update(0.0)
    case = make_case(name, image, job.seed)
    share.update(0.2)
    result = register(case.fixed, case.moving, job.settings, share.inner(0.2, 0.8))
    summary, errors = summarize_case(case, result, job.limits)
    profile = asked_profile(job.profile)
    add_assessment(summary, assess_case(case, result, profile, share.inner(0.82, 1.0)))
    summary["encoder"] = result.report["encoder"]
    share.update(1.0)
    return case, summary, Volume(errors, case.fixed.grid)


def _report(
    job: CommissionJob, source: Volume, notes: tuple[str, ...], summaries: list[dict]
) -> dict:
    """Measures, verdict and provenance; the CT appears by its sha256, never by its name."""
    not_run = [name for name in CASES if name not in job.cases]
    return {
        "schema": SCHEMA,
        "notice": NOTICE,
        "verdict": overall(summaries, not_run),
        "limits": asdict(job.limits),
        "limits_note": job.limits.looser_than_tg132(),
        "cases": summaries,
        "not_run": not_run,
        "provenance": {
            "versions": {"glidereg": __version__},
            "image": {
                "sha256": source.sha256,
                "geometry": source.grid.to_dict(),
                "notes": without_names_in(notes),
            },
            "settings": shareable_settings(job.settings),
            "seed": job.seed,
            "truth": "known displacement, LPS mm, fixed to moving; errors on the fixed grid",
            "error_maps": (
                f"mm; {NOT_COMPARED:g} where nothing was compared: outside the body, in air below "
                f"{AIR_HU:g} HU, and where the true partner lies outside the moving image"
            ),
        },
    }
