"""Structures of images that come without: TotalSegmentator, when it is installed.

Its command line is run as its documentation says (github.com/wasserth/TotalSegmentator), once with
the task ``total`` and once with ``lung_vessels``; both write a mask per structure into one folder.
Its weights are downloaded by itself, under its own license.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..volume import Volume, write_volume

COMMAND = "TotalSegmentator"
TASKS = ("total", "lung_vessels")
_POLL = 0.2


def missing() -> str | None:
    """None when the command is on the PATH, else one sentence that says how to get it."""
    if shutil.which(COMMAND):
        return None
    return "TotalSegmentator is not installed: pip install TotalSegmentator (and its weights)."


def segment(
    volume: Volume, folder: Path, device: str, check: Callable[[], None] = lambda: None
) -> None:
    """Writes the masks of a CT (HU) into ``folder``, all or none; does nothing when it exists.

    ``device``: "cuda" or "cpu". ``check`` may raise to cancel. Raises :class:`InputError` with one
    sentence when the command is missing or fails.
    """
    if folder.is_dir():
        return
    if (problem := missing()) is not None:
        raise InputError(problem)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".partial-") as scratch:
        image, masks = Path(scratch) / "ct.nii.gz", Path(scratch) / "masks"
        write_volume(image, volume, np.int16)
        for task in TASKS:
            words = [COMMAND, "-i", str(image), "-o", str(masks), "-ta", task]
            _run([*words, "-d", "gpu" if device == "cuda" else "cpu"], Path(scratch), check)
        if not list(masks.glob("*.nii.gz")):
            raise InputError("TotalSegmentator ended without writing any mask.")
        masks.rename(folder)


def _run(words: list[str], scratch: Path, check: Callable[[], None]) -> None:
    log = scratch / "log.txt"
    with log.open("w", encoding="utf-8") as stream:
        child = subprocess.Popen(words, stdout=stream, stderr=subprocess.STDOUT)
        try:
            while child.poll() is None:
                check()
                time.sleep(_POLL)
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
    if child.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last = lines[-1].strip() if lines else "no word of why"
        raise InputError(f"TotalSegmentator failed ({last[:150]}).")
