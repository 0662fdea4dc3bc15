"""One registration of the scene from start to end: write inputs, run, bring the result back.

Nothing here blocks: :meth:`Registration.poll` is called by a timer (panel) or in a loop (console).
Callbacks run in the caller's thread, where nodes and widgets may be touched.
"""

import json
import logging
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import slicer

from GlideRegScene.inputs import CollectedInputs, Request, collectInputs
from GlideRegScene.nodes import isBusy
from GlideRegScene.results import ResultFiles, ResultNodes, importResults, readFiles

from .folders import makeFolder, removeFolder, removeStaleFolders
from .process import WorkerProcess

#: Seconds that the end of the application waits for a killed worker.
_QUIT_SECONDS = 3.0
#: Stages of the library in the user's words.
STAGES = {
    "read": "Reading",
    "prepare": "Preparing",
    "align": "Aligning",
    "weights": "Fetching weights",
    "encode": "Encoding slices",
    "reduce": "Reducing features",
    "convex": "Searching displacements",
    "refine": "Refining",
    "measure": "Measuring",
    "track": "Tracking nodules",
    "carry": "Carrying over",
    "cases": "Commissioning",
    "field": "Sampling the transform",
    "structures": "Comparing structures",
    "consistency": "Going there and back",
    "intensities": "Comparing intensities",
    "pictures": "Drawing",
    "report": "Reporting",
    "save": "Saving",
}

_MEMORY_CODES = {-9, 137, 0xC0000017}
#: What PythonSlicer's launcher prints when the Python that it started was ended; it then exits
#: with 1, whatever the reason was.
_LAUNCHER_SAYS = "exit abnormally"
_MEMORY = (
    "The computation was ended by the system, most likely because memory ran out; close other "
    "programs, take the preset Fast, or a larger spacing."
)


@dataclass
class ProgressUpdate:
    """What to show: the stage in words, 0 to 1, and seconds left (None while unknown)."""

    stage: str
    fraction: float
    secondsLeft: float | None


class Registration:
    """A run of the worker for a request. ``state``: idle, running, succeeded, failed, cancelled.

    ``result`` holds the nodes after success, ``error`` the sentence after a failure, ``log`` every
    line of the worker (no patient names: it sees neutral file names only). ``kind`` says what it
    does, in a word.
    """

    kind = "registration"

    def __init__(
        self,
        request: Request,
        library: Path,
        onProgress: Callable[[ProgressUpdate], None] | None = None,
        onFinished: Callable[["Registration"], None] | None = None,
    ) -> None:
        self.request = request
        self.state = "idle"
        self.result: ResultNodes | None = None
        self.error = ""
        self.log: list[str] = []
        self._library = library
        self._onProgress = onProgress or (lambda update: None)
        self._onFinished = onFinished or (lambda registration: None)
        self._folder: Path | None = None
        self._inputs: CollectedInputs | None = None
        self._writer: threading.Thread | None = None
        self._failure: Exception | None = None
        self._process: WorkerProcess | None = None
        self._outcome: dict | None = None
        self._files: ResultFiles | None = None
        self._stopped = False
        self._abandoned = False

    def start(self) -> None:
        """Takes the inputs from the scene; they are written and the worker is started by others.

        Raises the library's GlideRegError, one sentence, and leaves nothing behind.
        """
        from GlideRegLib.errors import InputError, OutputError

        problem = self.request.problem()
        if problem:
            raise InputError(problem)
        removeStaleFolders()
        try:
            self._folder = makeFolder()
        except OSError as error:
            raise OutputError(_noFolder(error)) from error
        self._report(ProgressUpdate("Writing inputs", 0.0, None))
        try:
            self._inputs = self._collect(self._folder)
        except Exception:
            removeFolder(self._folder)
            raise
        self.state = "running"
        self._writer = threading.Thread(target=self._write, daemon=True)
        self._writer.start()

    def poll(self) -> bool:
        """Takes in what the worker said; True once the run is over and its nodes are there."""
        if self.state != "running":
            return True
        if self._process is None:
            self._pollWriting()
        else:
            self._pollWorker()
        return self.state != "running"

    def cancel(self) -> None:
        """Asks the worker to stop; the next polls see to it that it does within two seconds."""
        if self.state == "running" and not self._stopped:
            self._stopped = True
            self.log.append("Cancelled by the user.")
            if self._process is not None:
                self._process.cancel()

    def abandon(self) -> None:
        """The scene is being closed: stop, and bring nothing back."""
        self._abandoned = True
        self.cancel()

    def kill(self) -> None:
        """The application ends: stop at once."""
        if self.state == "running":
            self.abandon()
            if self._process is not None:
                self._process.kill()
            deadline = time.monotonic() + _QUIT_SECONDS
            while not self.poll() and time.monotonic() < deadline:
                time.sleep(0.02)

    def wait(self, processEvents: Callable[[], None] = lambda: None, interval: float = 0.05):
        """Polls until the run is over; ``processEvents`` keeps the application alive."""
        while not self.poll():
            processEvents()
            time.sleep(interval)
        return self.result

    # --- what another kind of run does in its own way (see tracking.py) ---------------------------

    def _collect(self, folder: Path) -> CollectedInputs:
        return collectInputs(self.request, folder)

    def _read(self, folder: Path) -> ResultFiles:
        return readFiles(folder)

    def _import(self) -> ResultNodes:
        return importResults(self.request, self._files, self._inputs.fixedMatrix)

    # --- writing, in a thread of its own -----------------------------------------------------

    def _write(self) -> None:
        try:
            self._inputs.write(lambda: not self._stopped)
            job = {**self._inputs.job, "output": str(self._folder / "output")}
            (self._folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        except Exception as error:  # told to the user by the next poll
            self._failure = error
        if self._stopped:
            removeFolder(self._folder)

    def _pollWriting(self) -> None:
        if self._stopped:
            self._end("cancelled", "")
        elif not self._writer.is_alive():
            try:
                if self._failure is not None:
                    raise self._failure
                self._process = WorkerProcess(self._folder, self._library, self._readFiles)
                self._process.start()
            except Exception as error:
                self.log.append(traceback.format_exc())
                self._end("failed", _notStarted(error))

    # --- the worker -------------------------------------------------------------------------------

    def _pollWorker(self) -> None:
        for event in self._process.poll():
            self._take(event)
        if self._process.finished and not isBusy(slicer.mrmlScene):
            self._finish()

    def _take(self, event: dict | str) -> None:
        if isinstance(event, str):
            self.log.append(event)
        elif event["event"] in ("stage", "progress"):
            stage = STAGES.get(event["stage"], event["stage"].capitalize())
            if event["event"] == "stage":
                self.log.append(f"{stage} ({100 * event['fraction']:.0f} %)")
            self._report(ProgressUpdate(stage, event["fraction"], event["seconds_left"]))
        elif event["event"] == "message":
            self.log.append(f"{event['level']}: {self._readable(event['text'])}")
        else:
            self._outcome = event

    def _readFiles(self) -> None:
        """In the reading thread: what the worker wrote, so that the application is not held up."""
        try:
            self._files = self._read(self._folder / "output")
        except Exception as error:  # told to the user when the run is judged
            self._failure = error

    def _finish(self) -> None:
        state, sentence = self._judge()
        if state == "succeeded":
            state, sentence = self._bringBack()
        self._end(state, sentence)

    def _end(self, state: str, sentence: str) -> None:
        if not (self._writer is not None and self._writer.is_alive()):
            removeFolder(self._folder)  # else the writer does it when it gives way
        self.state, self.error = state, sentence
        if sentence:
            self.log.append(f"error: {sentence}")
        self._call(self._onFinished, self)

    def _report(self, update: ProgressUpdate) -> None:
        if not self._abandoned:
            self._call(self._onProgress, update)

    def _call(self, callback: Callable, argument: object) -> None:
        """A fault of a caller's callback must not cost the run."""
        try:
            callback(argument)
        except Exception:
            self.log.append(traceback.format_exc())
            logging.exception("A callback of the registration failed.")

    def _judge(self) -> tuple[str, str]:
        """State and sentence from what the worker said last and how it ended."""
        outcome = self._outcome or {}
        code = self._process.returnCode
        if self._stopped or outcome.get("kind") == "cancelled":
            return "cancelled", ""
        if outcome.get("event") == "result":
            return "succeeded", ""
        if outcome.get("event") == "error":
            return "failed", self._readable(outcome["message"])
        if code in _MEMORY_CODES or any(_LAUNCHER_SAYS in line for line in self.log[-20:]):
            return "failed", _MEMORY
        return "failed", (
            f"The computation ended unexpectedly (exit code {code}); nothing was changed. The log "
            "shows its last lines."
        )

    def _bringBack(self) -> tuple[str, str]:
        from GlideRegLib.errors import GlideRegError

        try:
            if self._files is None:
                raise self._failure or RuntimeError("the worker's files are missing")
            self.result = self._import()
        except GlideRegError as error:
            return "failed", str(error)
        except Exception as error:
            self.log.append(traceback.format_exc())
            return "failed", (
                f"The result could not be put into the scene ({firstLine(error)}); the scene is as "
                "it was."
            )
        return "succeeded", ""

    def _readable(self, text: str) -> str:
        """The worker's sentence with roles in the place of our temporary files."""
        for role in ("fixed", "moving"):
            for file, words in (
                (f"{role}.mha", f"The {role} volume"),
                (f"{role}-mask.mha", f"The {role} mask"),
                (f"{role}-landmarks.csv", f"The {role} landmarks"),
                (f"{role}-nodules.mrk.json", f"The {role} nodules"),
                (f"{role}-nodules.nrrd", f"The {role} nodules"),
            ):
                path = str(self._folder / file)
                for quoted in (f"'{path}'", path):
                    if text.startswith(quoted):
                        text = text.replace(quoted, words, 1)
                    text = text.replace(quoted, words[0].lower() + words[1:])
        return text.replace(str(self._folder), "the folder of the run")


def _noFolder(error: Exception) -> str:
    return (
        f"The run could not be started ({firstLine(error)}); check that the temporary folder of "
        "Slicer has space and can be written."
    )


def _notStarted(error: Exception) -> str:
    from GlideRegLib.errors import GlideRegError

    return str(error) if isinstance(error, GlideRegError) else _noFolder(error)


def firstLine(error: Exception) -> str:
    """What went wrong, on one line."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]
