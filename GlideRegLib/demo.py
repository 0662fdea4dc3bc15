"""``glidereg demo``: a pair whose truth is known, or the real follow-up pair."""

from __future__ import annotations

import tempfile
from pathlib import Path

from .errors import InputError, WeightsError
from .job import Job, run_job
from .progress import Progress
from .settings import Settings, with_changes

#: The weights that the development data brings along.
_DATA_WEIGHTS = Path("weights") / "mobile_sam_image_encoder.safetensors"


def run_demo(data: str | None, output: str, preset: str, encoder: str, progress: Progress) -> dict:
    """Registers the phantom (``data`` None) or the follow-up pair in ``data``/lung_followup.

    Writes the same files as ``glidereg register`` into ``output`` and returns the report. With
    encoder "auto" and no weights to be had, local features alone are used, and it is said.
    """
    settings = with_changes(Settings.preset(preset), features={"encoder": encoder})
    if data is not None:
        return _run(_real_job(Path(data), output, settings), progress)
    with tempfile.TemporaryDirectory() as folder:
        progress.message("Making a thorax phantom with a known breathing motion.")
        from .sample_data.phantom import make_phantom_pair

        paths = {k: str(v) for k, v in make_phantom_pair().save(folder).items()}
        job = Job(
            fixed=paths["fixed"],
            moving=paths["moving"],
            output=output,
            settings=settings,
            fixed_landmarks=(paths["fixed_landmarks"],),
            moving_landmarks=(paths["moving_landmarks"],),
            fixed_labels=paths["fixed_labels"],
            moving_labels=paths["moving_labels"],
        )
        return _run(job, progress)


def _run(job: Job, progress: Progress) -> dict:
    try:
        return run_job(job, progress)
    except WeightsError as error:
        if job.settings.features.encoder != "auto":
            raise
        progress.message(f"{error} The demo goes on with local features alone.", level="warning")
        local = with_changes(job.settings, features={"encoder": "none"})
        return run_job(Job(**{**vars(job), "settings": local}), progress)


def _real_job(data: Path, output: str, settings: Settings) -> Job:
    """The real longitudinal pair; the weights in the data folder are taken when encoder is auto."""
    folder = data / "lung_followup"
    if not (folder / "baseline.mha").is_file():
        raise InputError(f"'{data}' does not hold lung_followup/baseline.mha; check the folder.")
    weights = data / _DATA_WEIGHTS
    if settings.features.encoder == "auto" and weights.is_file():
        settings = with_changes(
            settings, features={"encoder": "mobile_sam", "weights": str(weights)}
        )
    return Job(
        fixed=str(folder / "baseline.mha"),
        moving=str(folder / "followup.mha"),
        output=output,
        settings=settings,
        fixed_landmarks=(str(folder / "baseline_points51.txt"),),
        moving_landmarks=(str(folder / "followup_points51.txt"),),
    )
