"""Runs every method on every pair, each run in a process of its own, and only what is missing.

Runs that were interrupted, that failed, or that were made with other settings are made again.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from ..errors import Cancelled, InputError, SettingsError
from ..job import check_output
from ..methods import find
from ..progress import Progress
from ..redaction import without_names
from . import segmenter
from .baselines import BASELINES, check_names
from .plan import BenchmarkJob, Run, plan_runs
from .run_one import PROBLEM

__all__ = ["BenchmarkJob", "Run", "plan_runs", "run_benchmark"]

#: How often a running process is looked at, seconds.
_POLL = 0.1
#: How long a run may take to end when it is asked to, seconds.
_GRACE = 3.0
_CANCELLED = "The benchmark was cancelled; finished runs are kept and are not made again."


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
    waiting = [run for run in runs if run.content["method"] not in missing and not run.complete()]
    progress.message(f"{len(runs)} runs, {len(waiting)} of them to be made.")
    progress.set_plan({"runs": 1.0})
    with progress.stage("runs"), _told_to_end() as told:
        problems = _run_all(waiting, job, progress, told)
    return [_record(run, missing, problems) for run in runs]


def _check(job: BenchmarkJob) -> dict[str, str]:
    """Everything that can be wrong before a pair is read; methods that cannot run here, and why."""
    missing = check_names(job.methods, job.method_options)
    job.settings.check()
    if job.segment and (problem := segmenter.missing()) is not None:
        raise InputError(problem)
    check_output(Path(job.output))
    strangers = sorted(set(job.method_options) - set(job.methods))
    if strangers:
        raise SettingsError(f"There are options for {', '.join(strangers)}, which takes no part.")
    for name, options in job.method_options.items():
        _check_options(name, options)
    return missing


def _check_options(name: str, options: dict) -> None:
    if name in BASELINES and options:
        raise SettingsError(f"The method {name} has no options of its own.")
    problems = [] if name in BASELINES else find(name).problems(options)
    if problems:
        raise SettingsError(f"The options of {name} cannot be used: {'; '.join(problems)}.")


@contextmanager
def _told_to_end() -> Iterator[threading.Event]:
    """Set when this process is told to end: the runs that it started must end before it does."""
    told = threading.Event()
    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        names = []  # handlers can be set there alone
    before = {name: signal.getsignal(getattr(signal, name)) for name in names}
    for name in names:
        signal.signal(getattr(signal, name), lambda *_: told.set())
    try:
        yield told
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler or signal.SIG_DFL)


def _run_all(
    runs: list[Run], job: BenchmarkJob, progress: Progress, told: threading.Event
) -> dict[Path, str]:
    """The runs, some at a time; folder -> sentence for those that failed."""
    problems: dict[Path, str] = {}
    if not runs:
        return problems
    stop: list[bool] = []
    with ThreadPoolExecutor(max_workers=max(job.jobs, 1)) as pool:
        futures = {pool.submit(_run_child, run, job, stop): run for run in runs}
        try:
            for done, future in enumerate(_finished(futures, progress, told), start=1):
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


def _finished(futures: dict, progress: Progress, told: threading.Event) -> Iterator:
    """The futures as they end; asks ten times a second whether the user wants to stop."""
    waiting = set(futures)
    while waiting:
        if progress.cancel_wanted() or told.is_set():
            raise Cancelled(_CANCELLED)
        done, waiting = wait(waiting, timeout=_POLL, return_when=FIRST_COMPLETED)
        yield from done


def _run_child(run: Run, job: BenchmarkJob, stop: list[bool]) -> str | None:
    """One run in a process of its own; None, or one sentence about what went wrong."""
    shutil.rmtree(run.folder, ignore_errors=True)
    run.folder.mkdir(parents=True)
    job_file = run.folder / "job.json"
    job_file.write_text(json.dumps(run.content, indent=1), encoding="utf-8")
    try:
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
                    _end(child)
                    if stop:
                        raise Cancelled(_CANCELLED)
                    return f"did not end within {job.limit_seconds:g} s"
                time.sleep(_POLL)
    finally:
        job_file.unlink(missing_ok=True)  # it names folders of this machine
    if run.finished() is not None:
        return None
    return _problem(run.folder, child.returncode)


def _end(child: subprocess.Popen) -> None:
    """Ends a run: first asked, so that it ends the programs that it runs; whatever is left of it
    and of them after a moment is killed."""
    family = _family(child)
    child.terminate()
    with suppress(subprocess.TimeoutExpired):
        child.wait(_GRACE)
    for process in {*family, *_family(child)}:
        with suppress(psutil.Error):
            process.kill()
    child.wait()


def _family(child: subprocess.Popen) -> list[psutil.Process]:
    """A process and all that it started, in sessions of their own too."""
    try:
        process = psutil.Process(child.pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


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
    record = run.finished()
    if record is None:
        problem = missing.get(method) or problems.get(run.folder, "was not run")
        return {**head, "problem": problem}
    return {**head, **record, "problem": None}
