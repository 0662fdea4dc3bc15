"""The folder of a run: it holds a patient's voxels, so it must not outlive the run."""

import os
import shutil
import tempfile
import threading
import time
from pathlib import Path

import slicer

_PREFIX = "GlideReg-"
_OWNER = "owner"
_TRIES = 20
#: Seconds after which a folder is stale even when its owner cannot be told.
_DAY = 86400.0


def temporaryFolder() -> str | None:
    """Slicer's own temporary folder, which the user can choose; None for the system's."""
    path = getattr(getattr(slicer, "app", None), "temporaryPath", None)
    return path if isinstance(path, str) and Path(path).is_dir() else None


def makeFolder() -> Path:
    """A new folder that says which process it belongs to. Raises OSError."""
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=temporaryFolder()))
    (folder / _OWNER).write_text(str(os.getpid()), encoding="ascii")
    return folder


def removeFolder(folder: Path | None) -> None:
    """Removes it now; where a scanner still holds a file (Windows), again and again for a while."""
    if folder is None:
        return
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        threading.Thread(target=_insist, args=(folder,), daemon=True).start()


def removeStaleFolders() -> None:
    """Removes what runs of a Slicer that crashed have left behind."""
    root = Path(temporaryFolder() or tempfile.gettempdir())
    for folder in root.glob(f"{_PREFIX}*"):
        if (folder / _OWNER).is_file() and not _isOwned(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _insist(folder: Path) -> None:
    for _ in range(_TRIES):
        time.sleep(0.5)
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return


def _isOwned(folder: Path) -> bool:
    """Whether the process that made the folder still runs (or might)."""
    try:
        owner = int((folder / _OWNER).read_text(encoding="ascii"))
        age = time.time() - (folder / _OWNER).stat().st_mtime
    except (OSError, ValueError):
        return True
    try:
        import psutil  # comes with the library's requirements
    except ImportError:
        return age < _DAY
    if not psutil.pid_exists(owner):
        return False
    # A number that was given away again belongs to a process that is younger than the folder.
    try:
        return psutil.Process(owner).create_time() <= time.time() - age + 1
    except psutil.Error:
        return True
