"""A registration in its own process: ``python -m GlideRegLib.worker job.json``.

Prints JSON lines on stdout: ``{"event": "stage" | "progress" | "message" | "result" | "error"}``.
The job's ``"task"``: none registers, ``"track"`` follows nodules (``tracking/job.py``),
``"assess"`` measures a transform (``assurance/job.py``), ``"propagate"`` carries structures
(``propagation/job.py``), ``"commission"`` tests the method on a CT (``commission/job.py``).
A file ``cancel`` beside the job file, or SIGTERM, ends the run within two seconds; outputs are
written whole or not at all. Exit code 0, 2 (an input or setting cannot be used), 130 (cancelled)
or 1 (a fault of ours). With ``GLIDEREG_LOW_PRIORITY`` set it lets other programs go first.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from . import machine
from .errors import Cancelled, GlideRegError, SettingsError
from .job import Job, run_job
from .progress import Progress, ProgressEvent

#: Seconds between looks for the cancel file, and how long a step may go on after the wish.
_POLL = 0.1
_GRACE = 1.0


class _Events:
    """Writes one JSON object per line, from any thread."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def send(self, event: str, **values: object) -> None:
        with self._lock:
            self._stream.write(json.dumps({"event": event, **values}) + "\n")
            self._stream.flush()

    def forward(self, event: ProgressEvent) -> None:
        """A progress event of the library as a line."""
        if event.kind == "message":
            self.send("message", level=event.level, text=event.text)
            return
        left = None if event.seconds_left is None else round(event.seconds_left, 1)
        self.send(
            event.kind,
            stage=event.stage,
            fraction=round(event.fraction, 4),
            stage_fraction=round(event.stage_fraction, 4),
            seconds_left=left,
        )


class _CancelWatch:
    """Looks for the wish to cancel; ends the process when a step does not give way in time."""

    def __init__(self, file: Path, events: _Events) -> None:
        self._file = file
        self._events = events
        self._wanted = threading.Event()
        self._finished = threading.Event()
        self.output: Path | None = None
        signal.signal(signal.SIGTERM, lambda *_: self._wanted.set())
        threading.Thread(target=self._watch, daemon=True).start()

    def wanted(self) -> bool:
        return self._wanted.is_set()

    def finish(self) -> None:
        """The run is over: whatever happens now, nothing is killed."""
        self._finished.set()

    def _watch(self) -> None:
        while not self._finished.wait(_POLL):
            if self._file.exists():
                self._wanted.set()
            if self._wanted.is_set():
                break
        if not self._finished.wait(_GRACE):
            if self.output is not None:
                for partial in self.output.glob(".partial-*"):
                    shutil.rmtree(partial, ignore_errors=True)
            self._events.send("error", kind=Cancelled.kind, message=_CANCELLED)
            os._exit(Cancelled.exit_code)


_CANCELLED = "The run was cancelled; nothing was written."


def _broken(error: ImportError) -> str:
    package = (error.name or "a package").partition(".")[0]
    return (
        f"The Python package '{package}' is missing or broken; install it again (PyTorch: with the "
        "extension of that name in 3D Slicer), then restart."
    )


def _understood(text: str) -> tuple[Any, Callable[[Any, Progress], dict]]:
    """The job that a text describes, and what runs it and says the outcome as plain values."""
    try:
        data = json.loads(text)
    except json.JSONDecodeError:
        data = None
    task = data.get("task", "register") if isinstance(data, dict) else "register"
    if task == "register":
        return Job.from_json(text), _register
    if task == "track":
        from .tracking.job import TrackJob

        return TrackJob.from_json(text), _track
    if task == "assess":
        from .assurance.job import AssessJob

        return AssessJob.from_json(text), _assess
    if task == "propagate":
        from .propagation.job import PropagateJob

        return PropagateJob.from_json(text), _propagate
    if task == "commission":
        from .commission.job import CommissionJob

        return CommissionJob.from_json(text), _commission
    raise SettingsError(f"The worker does not know the task '{task}'.")


def _register(job: Job, progress: Progress) -> dict:
    report = run_job(job, progress)
    return {"quality": report["quality"], "encoder": report["encoder"]}


def _track(job: Any, progress: Progress) -> dict:
    from .tracking.job import run_track_job

    return {"nodules": run_track_job(job, progress).counts()}


def _assess(job: Any, progress: Progress) -> dict:
    from .assurance.job import run_assess_job

    assessment = run_assess_job(job, progress)
    return {"verdict": assessment.verdict.value, "counts": assessment.counts()}


def _propagate(job: Any, progress: Progress) -> dict:
    from .propagation.job import run_propagate_job

    return {"items": run_propagate_job(job, progress)["items"]}


def _commission(job: Any, progress: Progress) -> dict:
    from .commission.job import run_commission_job

    return {"verdict": run_commission_job(job, progress)["verdict"]}


def main(arguments: list[str] | None = None) -> int:
    """Runs the job file named in ``arguments``; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    machine.configure_process()
    events = _Events(sys.stdout)
    sys.stdout = sys.stderr  # whatever a library prints must not break the protocol
    started = time.monotonic()
    watch: _CancelWatch | None = None
    try:
        if len(arguments) != 1:
            raise SettingsError("The worker takes one argument: the path of a job file.")
        path = Path(arguments[0])
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise SettingsError(
                f"The job file '{path}' cannot be read ({error.strerror})."
            ) from error
        watch = _CancelWatch(path.parent / "cancel", events)
        job, run = _understood(text)
        watch.output = Path(job.output)
        if os.environ.get("GLIDEREG_LOW_PRIORITY"):
            machine.lower_priority()
        outcome = run(job, Progress(events.forward, watch.wanted))
        watch.finish()
        seconds = round(time.monotonic() - started, 2)
        events.send("result", output=str(job.output), seconds=seconds, **outcome)
        return 0
    except GlideRegError as error:
        if watch is not None:
            watch.finish()
        events.send("error", kind=error.kind, message=str(error))
        return error.exit_code
    except ImportError as error:
        if watch is not None:
            watch.finish()
        traceback.print_exc(file=sys.stderr)
        events.send("error", kind="installation", message=_broken(error))
        return 2
    except Exception as error:
        if watch is not None:
            watch.finish()
        traceback.print_exc(file=sys.stderr)
        events.send(
            "error",
            kind="internal",
            message=f"GlideReg failed in a way that it should not ({type(error).__name__}); "
            "the log has the details, please report it.",
        )
        return 1


if __name__ == "__main__":
    sys.exit(main())
