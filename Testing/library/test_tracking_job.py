"""Tracking as a job of the worker process: JSON, progress, identities, cancelling, sentences."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nodule_scene import SHIFT, STAYS, write_small_pair

from GlideRegLib.errors import Cancelled, GlideRegError
from GlideRegLib.progress import Progress
from GlideRegLib.tracking.files import read_tracking
from GlideRegLib.tracking.job import TrackJob, run_track_job
from GlideRegLib.tracking.nodules import as_point
from GlideRegLib.tracking.track import MeasureSettings, TrackSettings
from GlideRegLib.worker import _understood


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_small_pair(tmp_path_factory.mktemp("small"))


def job_of(small: dict, output: Path, **changes: object) -> TrackJob:
    """The small files as a job, lists only."""
    names = {"moving_nodules": "before", "fixed_nodules": "now", "transform": "shift"}
    paths = {role: str(small[name]) for role, name in names.items()}
    settings = TrackSettings(measure=MeasureSettings(segment=True, days=90.0))
    job = TrackJob(str(small["fixed"]), str(small["moving"]), str(output), **paths)
    return replace(job, outputs="lists", settings=settings, **changes)


def start_worker(text: str, folder: Path) -> subprocess.Popen:
    (folder / "job.json").write_text(text, encoding="utf-8")
    arguments = [sys.executable, "-m", "GlideRegLib.worker", str(folder / "job.json")]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_worker_tracks_with_progress_and_identities(small: dict, tmp_path: Path) -> None:
    place = as_point(np.asarray(STAYS) + SHIFT)
    job = job_of(small, tmp_path / "out", moving_identities=(("mine", place),))
    assert TrackJob.from_json(job.to_json()) == job
    worker = start_worker(job.to_json(), tmp_path)
    events = [json.loads(line) for line in worker.communicate(timeout=120)[0].splitlines()]
    assert worker.returncode == 0
    stages = [event["stage"] for event in events if event["event"] == "stage"]
    assert stages == ["read", "track", "pictures", "save"]
    fractions = [event["fraction"] for event in events if event["event"] == "progress"]
    assert fractions == sorted(fractions) and len(set(fractions)) > 3
    assert events[-1]["event"] == "result" and events[-1]["nodules"]["matched"] == 1
    lists, masks = ["csv", "json"], ["nodules-current.nrrd", "nodules-prior.nrrd"]
    written = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert written == [*masks, *(f"nodules.{kind}" for kind in lists)]
    found = read_tracking(tmp_path / "out" / "nodules.json")
    assert found.rows[0].identifier == "mine"
    assert found.rows[0].growth.days == 90


def test_lists_need_neither_pictures_nor_templates(
    small: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3D Slicer runs it so, and installs only what this needs (Resources/requirements.txt)."""
    for name in ("typer", "rich", "jinja2", "matplotlib", "PIL"):
        absent = tmp_path / "site" / name
        absent.mkdir(parents=True)
        (absent / "__init__.py").write_text(f"raise ImportError(name='{name}')", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    worker = start_worker(job_of(small, tmp_path / "out").to_json(), tmp_path)
    output, log = worker.communicate(timeout=120)
    assert worker.returncode == 0, output + log


def test_the_worker_ends_within_two_seconds_of_the_wish(small: dict, tmp_path: Path) -> None:
    points = np.asarray(STAYS) + SHIFT + np.linspace(-3, 3, 400)[:, None]
    many = tmp_path / "many.csv"
    many.write_text("x,y,z\n" + "\n".join(",".join(map(str, p)) for p in points), encoding="utf-8")
    job = job_of(small, tmp_path / "out", moving_nodules=str(many))
    worker = start_worker(job.to_json(), tmp_path)
    for line in worker.stdout:
        if json.loads(line).get("stage") == "track":
            break
    wished = time.monotonic()
    (tmp_path / "cancel").touch()
    last = worker.communicate(timeout=30)[0].splitlines()[-1]
    assert time.monotonic() - wished < 3  # two seconds, and what a busy machine adds
    assert (worker.returncode, json.loads(last)["kind"]) == (130, "cancelled")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"task": "sing"}, "does not know the task 'sing'"),
        ({"settings": {"gates": {"width": 3}}}, "unknown names: width"),
        ({"color": "red"}, "unknown names color"),
        ({"fixed": ""}, "lacks fixed"),
        ({"outputs": "songs"}, '"files" or "lists"'),
        ({"transform": None}, "for a transform that is given"),
        ({"moving_identities": [["a", [1, 2]]]}, "damaged"),
        ({"settings": {"measure": {"days": -1}}}, "must be positive"),
        ({"moving_nodules": "none"}, "prior scan are missing"),
    ],
)
def test_a_wrong_job_is_one_sentence(small: dict, tmp_path: Path, change: dict, said: str) -> None:
    data = {**json.loads(job_of(small, tmp_path / "out").to_json()), **change}
    with pytest.raises(GlideRegError, match=re.escape(said)):
        job, run = _understood(json.dumps(data))
        run(job, Progress())


def test_a_cancelled_tracking_leaves_nothing(small: dict, tmp_path: Path) -> None:
    seen: list[str] = []
    progress = Progress(lambda event: seen.append(event.stage), lambda: "track" in seen)
    with pytest.raises(Cancelled):
        run_track_job(job_of(small, tmp_path / "out"), progress)
    assert list(tmp_path.iterdir()) == []
