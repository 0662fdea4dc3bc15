"""One registration of the scene from start to end: write inputs, run, bring the result back.

Nothing here blocks: :meth:`Registration.poll` is called by a timer (panel) or in a loop (console).
Callbacks run in the caller's thread, where nodes and widgets may be touched.
"""

import json
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from GlideRegScene.inputs import Request, writeInputs
from GlideRegScene.results import ResultNodes, importResults

from .process import WorkerProcess

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
    "report": "Reporting",
    "save": "Saving",
}

_MEMORY_CODES = {-9, 137, 0xC0000017}
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
    line of the worker (no patient names: it sees neutral file names only).
    """

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
        self._process: WorkerProcess | None = None
        self._outcome: dict | None = None
        self._fixedResampled = False
        self._abandoned = False

    def start(self) -> None:
        """Writes the inputs and starts the worker.

        Raises the library's GlideRegError, one sentence, and leaves nothing behind.
        """
        from GlideRegLib.errors import GlideRegError, InputError, OutputError

        problem = self.request.problem()
        if problem:
            raise InputError(problem)
        self._folder = Path(tempfile.mkdtemp(prefix="GlideReg-", dir=temporaryFolder()))
        try:
            self._onProgress(ProgressUpdate("Writing inputs", 0.0, None))
            written = writeInputs(self.request, self._folder)
            self._fixedResampled = written.fixedResampled
            job = {**written.job, "output": str(self._folder / "output")}
            (self._folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
            self._process = WorkerProcess(self._folder, self._library)
            self._process.start()
        except GlideRegError:
            self._removeFolder()
            raise
        except (OSError, RuntimeError) as error:
            self._removeFolder()
            raise OutputError(
                f"The run could not be started ({_firstLine(error)}); check that the temporary "
                "folder of Slicer has space and can be written."
            ) from error
        self.state = "running"

    def poll(self) -> bool:
        """Takes in what the worker said; True once the run is over and its nodes are there."""
        if self.state != "running":
            return True
        for event in self._process.poll():
            self._take(event)
        if self._process.finished:
            self._finish()
        return self.state != "running"

    def cancel(self) -> None:
        """Asks the worker to stop; the next polls see to it that it does within two seconds."""
        if self.state == "running":
            self.log.append("Cancelled by the user.")
            self._process.cancel()

    def abandon(self) -> None:
        """The scene is being closed: stop, and bring nothing back."""
        self._abandoned = True
        self.cancel()

    def kill(self) -> None:
        """The application ends: stop at once."""
        if self.state == "running":
            self._abandoned = True
            self._process.kill()
            self.wait()

    def wait(self, processEvents: Callable[[], None] = lambda: None, interval: float = 0.05):
        """Polls until the run is over; ``processEvents`` keeps the application alive."""
        while not self.poll():
            processEvents()
            time.sleep(interval)
        return self.result

    # --- inside -----------------------------------------------------------------------------------

    def _take(self, event: dict | str) -> None:
        if isinstance(event, str):
            self.log.append(event)
        elif event["event"] in ("stage", "progress"):
            stage = STAGES.get(event["stage"], event["stage"].capitalize())
            update = ProgressUpdate(stage, event["fraction"], event["seconds_left"])
            if event["event"] == "stage":
                self.log.append(f"{stage} ({100 * event['fraction']:.0f} %)")
            if not self._abandoned:
                self._onProgress(update)
        elif event["event"] == "message":
            self.log.append(f"{event['level']}: {self._readable(event['text'])}")
        else:
            self._outcome = event

    def _finish(self) -> None:
        try:
            self.state, self.error = self._judge()
            if self.state == "succeeded":
                self._bringBack()
        finally:
            self._removeFolder()
        if self.error:
            self.log.append(f"error: {self.error}")
        self._onFinished(self)

    def _judge(self) -> tuple[str, str]:
        """State and sentence from what the worker said last and how it ended."""
        outcome = self._outcome or {}
        code = self._process.returnCode
        if outcome.get("event") == "result" and not self._wasCancelled():
            return "succeeded", ""
        if self._wasCancelled() or outcome.get("kind") == "cancelled":
            return "cancelled", ""
        if outcome.get("event") == "error":
            return "failed", self._readable(outcome["message"])
        if code in _MEMORY_CODES:
            return "failed", _MEMORY
        return "failed", (
            f"The computation ended unexpectedly (exit code {code}); nothing was changed. The log "
            "shows its last lines."
        )

    def _wasCancelled(self) -> bool:
        return self._abandoned or self._process.cancelled

    def _bringBack(self) -> None:
        from GlideRegLib.errors import GlideRegError

        try:
            self.result = importResults(self.request, self._folder / "output", self._fixedResampled)
        except GlideRegError as error:
            self.state, self.error = "failed", str(error)
        except Exception as error:
            self.log.append(traceback.format_exc())
            self.state = "failed"
            self.error = (
                f"The result could not be put into the scene ({_firstLine(error)}); the scene is "
                "as it was."
            )

    def _readable(self, text: str) -> str:
        """The worker's sentence with roles in the place of our temporary files."""
        for role in ("fixed", "moving"):
            for file, words in (
                (f"{role}.mha", f"The {role} volume"),
                (f"{role}-mask.mha", f"The {role} mask"),
                (f"{role}-landmarks.csv", f"The {role} landmarks"),
            ):
                path = str(self._folder / file)
                for quoted in (f"'{path}'", path):
                    if text.startswith(quoted):
                        text = text.replace(quoted, words, 1)
                    text = text.replace(quoted, words[0].lower() + words[1:])
        return text.replace(str(self._folder), "the folder of the run")

    def _removeFolder(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def temporaryFolder() -> str | None:
    """Slicer's own temporary folder, which the user can choose; None for the system's."""
    import slicer

    path = getattr(getattr(slicer, "app", None), "temporaryPath", None)
    return path if isinstance(path, str) and Path(path).is_dir() else None


def _firstLine(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]
