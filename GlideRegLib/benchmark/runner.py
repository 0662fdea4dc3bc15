"""Runs every method on every pair, each run in a process of its own, and only what is missing.

A run's folder is ``runs/DATASET/PAIR/METHOD``. It counts when its record holds the key of the run:
a hash over the method, its settings, the library's version and the contents of the pair's files.
Runs that were interrupted, that failed, or that were made with other settings are made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from .. import __version__, machine
from ..errors import Cancelled, InputError, SettingsError
from ..job import check_output
from ..progress import Progress
from ..redaction import without_names
from ..settings import Settings
from . import segmenter
from .baselines import check_names
from .datasets import Pair, open_dataset, with_structures
from .run_one import PROBLEM, RECORD

#: How often a running process is looked at, seconds.
_POLL = 0.1
_CANCELLED = "The benchmark was cancelled; finished runs are kept and are not made again."


@dataclass(frozen=True)
class BenchmarkJob:
    """What is compared: data sets (names or paths), methods, the folder of the results.

    ``settings`` count for all methods; ``method_options`` holds each method's own by its name.
    ``pairs`` keeps only these identifiers. ``masks``: given to the methods that take masks.
    ``structures``: see :func:`.datasets.with_structures`. ``segment``: TotalSegmentator makes them
    for pairs that have none. ``limit_seconds`` ends a run.
    """

    datasets: tuple[str, ...]
    methods: tuple[str, ...]
    output: str
    settings: Settings = field(default_factory=Settings)
    method_options: dict[str, dict] = field(default_factory=dict)
    split: str | None = None
    data: str | None = None
    structures: str | None = None
    segment: bool = False
    pairs: tuple[str, ...] = ()
    masks: bool = False
    keep_fields: bool = True
    jobs: int = 1
    limit_seconds: float = 3600.0


@dataclass(frozen=True)
class Run:
    """One method on one pair: what the child process is told, and where it writes."""

    folder: Path
    content: dict

    @property
    def label(self) -> str:
        c = self.content
        return f"{c['dataset_name']} {c['pair']}, {c['method']}"

    def finished(self) -> dict | None:
        """The record, when it is whole and of this very run."""
        try:
            record = json.loads((self.folder / RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return record if record.get("key") == self.content["key"] else None


def run_benchmark(job: BenchmarkJob, progress: Progress | None = None) -> list[dict]:
    """Makes the runs that are missing and returns the records of all, in the order of data sets,
    pairs and methods. A run that failed has ``problem`` (one sentence) instead of measures.

    Raises :class:`InputError` and :class:`SettingsError` before anything long begins, and
    :class:`Cancelled`; what was finished then is kept.
    """
    progress = progress or Progress()
    missing = _check(job)
    for name, problem in missing.items():
        progress.message(f"{name} is left out: {problem}", level="warning")
    runs = list(plan_runs(job, progress))
    waiting = [
        run for run in runs if run.content["method"] not in missing and run.finished() is None
    ]
    progress.message(f"{len(runs)} runs, {len(waiting)} of them to be made.")
    progress.set_plan({"runs": 1.0})
    with progress.stage("runs"):
        problems = _run_all(waiting, job, progress)
    return [_record(run, missing, problems) for run in runs]


def _check(job: BenchmarkJob) -> dict[str, str]:
    """Everything that can be wrong before a pair is read; methods that cannot run here, and why."""
    missing = check_names(job.methods)
    job.settings.check()
    if job.segment and (problem := segmenter.missing()) is not None:
        raise InputError(problem)
    check_output(Path(job.output))
    strangers = sorted(set(job.method_options) - set(job.methods))
    if strangers:
        raise SettingsError(f"There are options for {', '.join(strangers)}, which takes no part.")
    return missing


def plan_runs(job: BenchmarkJob, progress: Progress) -> Iterator[Run]:
    """Every method on every pair. Raises :class:`InputError` when there is nothing to compare."""
    seen: set[str] = set()
    named: dict[str, Path] = {}
    count = 0
    for name in job.datasets:
        dataset = open_dataset(name, job.split, Path(job.data) if job.data else None)
        if dataset.name in seen:
            raise InputError(f"Two of the data sets are called '{dataset.name}'; rename one.")
        seen.add(dataset.name)
        for pair in dataset.pairs():
            if job.pairs and pair.identifier not in job.pairs:
                continue
            progress.check()
            common = {
                "dataset": name if not Path(name).exists() else str(Path(name).resolve()),
                "dataset_name": dataset.name,
                "about": dataset.about,
                "split": job.split,
                "data": job.data,
                "structures": _structures(job, dataset.name, pair, named, progress),
                "pair": pair.identifier,
                "masks": job.masks,
            }
            fingerprint = pair.fingerprint()
            for method in job.methods:
                count += 1
                yield _run(job, common, method, fingerprint)
    if not count:
        raise InputError("None of the data sets has such a pair.")


def _check_stems(pair: Pair, named: dict[str, Path]) -> None:
    """A folder of structures goes by the names of images, so each must mean one image."""
    for stem, path in zip(pair.stems or (), pair.files, strict=False):
        if named.setdefault(stem, path) != path:
            raise InputError(
                f"Two different images are called '{stem}', so their structures cannot be told "
                "apart; name the structures in a CSV manifest instead."
            )


def _structures(
    job: BenchmarkJob, dataset: str, pair: Pair, named: dict[str, Path], progress: Progress
) -> str | None:
    """The folder with the pair's structures, segmented when that is wanted; None: its own.
    ``named`` holds the images that were found by name so far."""
    if job.structures and with_structures(pair, Path(job.structures)) is not pair:
        _check_stems(pair, named)
        return str(Path(job.structures).resolve())
    if not job.segment or pair.read_structures is not None:
        return None
    folder = Path(job.output).joinpath("structures", *map(_as_folder, (dataset, pair.identifier)))
    device = machine.resolve_device(job.settings.device)
    for role, read in (("fixed", pair.read_fixed), ("moving", pair.read_moving)):
        if not (folder / role).is_dir():
            progress.message(f"TotalSegmentator: {dataset} {pair.identifier}, {role} image.")
            segmenter.segment(read(), folder / role, device, progress.check)
    return str(folder.resolve())


def _run(job: BenchmarkJob, common: dict, method: str, fingerprint: str) -> Run:
    settings = {**job.settings.to_dict(), "method": "glide", "method_options": {}}
    if method in job.method_options:
        # Options are checked by the method itself, which this makes the settings' own.
        settings.update(method=method, method_options=job.method_options[method])
    content = {**common, "method": method, "settings": settings}
    decisive = [method, settings, job.masks, common["structures"], fingerprint, __version__]
    text = json.dumps(decisive, sort_keys=True)
    content["key"] = hashlib.sha256(text.encode()).hexdigest()[:16]
    content["keep_fields"] = job.keep_fields
    parts = [_as_folder(common[name]) for name in ("dataset_name", "pair")]
    folder = Path(job.output).joinpath("runs", *parts, method).resolve()
    return Run(folder, {**content, "folder": str(folder)})


def _as_folder(name: str) -> str:
    """A name as one folder that every system takes."""
    return re.sub(r"[^\w.+-]+", "_", name).strip(".") or "_"


def _run_all(runs: list[Run], job: BenchmarkJob, progress: Progress) -> dict[Path, str]:
    """The runs, some at a time; folder -> sentence for those that failed."""
    problems: dict[Path, str] = {}
    if not runs:
        return problems
    stop: list[bool] = []
    with ThreadPoolExecutor(max_workers=max(job.jobs, 1)) as pool:
        futures = {pool.submit(_run_child, run, job, stop): run for run in runs}
        try:
            for done, future in enumerate(_finished(futures, progress), start=1):
                run, problem = futures[future], future.result()
                if problem is not None:
                    problems[run.folder] = problem
                    progress.message(f"{run.label}: {problem}", level="warning")
                else:
                    progress.message(f"{run.label}: done.")
                progress.update(done / len(runs))
        except BaseException:
            stop.append(True)
            for future in futures:
                future.cancel()
            raise
    return problems


def _finished(futures: dict, progress: Progress) -> Iterator:
    """The futures as they end; asks ten times a second whether the user wants to stop."""
    waiting = set(futures)
    while waiting:
        if progress.cancel_wanted():
            raise Cancelled(_CANCELLED)
        done, waiting = wait(waiting, timeout=_POLL, return_when=FIRST_COMPLETED)
        yield from done


def _run_child(run: Run, job: BenchmarkJob, stop: list[bool]) -> str | None:
    """One run in a process of its own; None, or one sentence about what went wrong."""
    shutil.rmtree(run.folder, ignore_errors=True)
    run.folder.mkdir(parents=True)
    job_file = run.folder / "job.json"
    job_file.write_text(json.dumps(run.content, indent=1), encoding="utf-8")
    with (run.folder / "log.txt").open("w", encoding="utf-8") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.run_one", str(job_file)],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=_environment(job.settings.threads),
        )
        started = time.monotonic()
        while child.poll() is None:
            late = time.monotonic() - started > job.limit_seconds
            if stop or late:
                child.kill()
                child.wait()
                if stop:
                    raise Cancelled(_CANCELLED)
                return f"did not end within {job.limit_seconds:g} s"
            time.sleep(_POLL)
    job_file.unlink()
    if run.finished() is not None:
        return None
    return _problem(run.folder, child.returncode)


def _environment(threads: int) -> dict[str, str]:
    """The child finds this library wherever it was started from, and every library in it uses that
    many threads."""
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    if threads:
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        more = (*names, "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")
        environment.update(dict.fromkeys(more, str(threads)))
    return environment


def _problem(folder: Path, code: int) -> str:
    """The sentence that the child left, else the last line that it printed."""
    sentence = folder / PROBLEM
    if sentence.is_file():
        return sentence.read_text(encoding="utf-8")
    text = (folder / "log.txt").read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return without_names(lines[-1])[:200] if lines else f"ended with code {code}"


def _record(run: Run, missing: dict[str, str], problems: dict[Path, str]) -> dict:
    """The record of a run, or what stands in its place."""
    method = run.content["method"]
    names = ("dataset_name", "about", "pair", "method")
    head = {name: run.content[name] for name in names}
    if method in missing:
        return {**head, "problem": missing[method]}
    record = run.finished()
    if record is None:
        return {**head, "problem": problems.get(run.folder, "was not run")}
    return {**head, **record, "problem": None}
