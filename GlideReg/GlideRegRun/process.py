"""The library's worker as a child process: events out, a wish to cancel in, no remains.

PythonSlicer is a launcher: ending it alone would leave the Python that it started. So a cancel file
asks first (the worker gives way within about a second), then the whole tree is ended.
"""

import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import slicer

#: Seconds between the wish to cancel and the end of the whole process tree.
GRACE = 1.3

# The library's folder goes to the front of the child's path, whatever the launcher does to
# PYTHONPATH.
_START = (
    "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); "
    "runpy.run_module('GlideRegLib.worker', run_name='__main__', alter_sys=True)"
)


#: UTF-8 whatever the system's code page is; the application stays usable during the run.
_ENVIRONMENT = {"PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1", "GLIDEREG_LOW_PRIORITY": "1"}


class WorkerProcess:
    """One run of the worker on ``folder/job.json``.

    :meth:`poll` hands out what it said since the last time: dictionaries for its events, and
    strings for whatever else it printed.
    """

    def __init__(
        self, folder: Path, library: Path, afterwards: Callable[[], None] = lambda: None
    ) -> None:
        """``afterwards`` is called in the reading thread when the worker ended well: to read its
        files without holding up the application."""
        self._folder = folder
        self._library = library
        self._afterwards = afterwards
        self._lines: queue.Queue[bytes | None] = queue.Queue()
        self._process: subprocess.Popen | None = None
        self._ended = False
        self._cancelledAt: float | None = None

    def start(self) -> None:
        """Starts the worker. Raises OSError when the interpreter cannot be run."""
        arguments = [pythonExecutable(), "-c", _START, str(self._library)]
        self._process = slicer.util.launchConsoleProcess(
            [*arguments, str(self._folder / "job.json")],
            updateEnvironment=_ENVIRONMENT,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def poll(self) -> list[dict | str]:
        """What the worker said since the last call; ends it when it does not give way in time."""
        if self._cancelledAt is not None and time.monotonic() - self._cancelledAt > GRACE:
            self.kill()
        found: list[dict | str] = []
        while True:
            try:
                line = self._lines.get_nowait()
            except queue.Empty:
                return found
            if line is None:
                self._ended = True
            elif line.strip():
                found.append(_parsed(line.decode("utf-8", errors="replace").rstrip()))

    @property
    def finished(self) -> bool:
        """Whether the process is gone and everything that it said was handed out."""
        return self._ended and self._process is not None and self._process.poll() is not None

    @property
    def returnCode(self) -> int | None:
        return None if self._process is None else self._process.returncode

    @property
    def cancelled(self) -> bool:
        """Whether it was asked to stop."""
        return self._cancelledAt is not None

    def cancel(self) -> None:
        """Asks the worker to stop; it is ended when it does not within ``GRACE`` seconds."""
        if self._cancelledAt is None:
            self._cancelledAt = time.monotonic()
            (self._folder / "cancel").touch()

    def kill(self) -> None:
        """Ends the process and everything that it started, at once."""
        if self._process is not None and self._process.poll() is None:
            killTree(self._process)

    def _read(self) -> None:
        stream = getattr(self._process.stdout, "buffer", self._process.stdout)
        try:
            for line in stream:
                self._lines.put(line)
        except (OSError, ValueError):  # the pipe was closed under us
            pass
        if self._process.wait() == 0:
            self._afterwards()
        self._lines.put(None)


def pythonExecutable() -> str:
    """PythonSlicer when this is Slicer, else the interpreter that runs."""
    found = shutil.which("PythonSlicer")
    if found is not None:
        return found
    home = getattr(getattr(slicer, "app", None), "slicerHome", None)
    for name in ("PythonSlicer", "PythonSlicer.exe"):
        if home and (Path(home) / "bin" / name).is_file():
            return str(Path(home) / "bin" / name)
    if Path(sys.executable).name.lower().startswith("python"):
        return sys.executable
    raise FileNotFoundError("PythonSlicer was not found beside this application")


def killTree(process: subprocess.Popen) -> None:
    """Ends a process and all of its children."""
    try:
        import psutil  # comes with the library's requirements

        parent = psutil.Process(process.pid)
        for child in parent.children(recursive=True):
            child.kill()
    except ImportError:
        if os.name == "nt":
            subprocess.run(
                ["taskkill", "/F", "/T", "/PID", str(process.pid)], check=False, capture_output=True
            )
    except psutil.Error:
        pass
    process.kill()


def _parsed(line: str) -> dict | str:
    """An event of the worker, or the line as it is."""
    if line.startswith("{"):
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            return line
        if isinstance(event, dict) and "event" in event:
            return event
    return line
