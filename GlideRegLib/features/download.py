"""Fetches one large file: with progress, resumable, cancelable, checked, and atomic.

A file arrives as ``<name>.part`` beside its place, survives a break or a cancel there, and is
moved to its place only when its sha256 is the expected one. Only the standard library is used, so
that proxies and certificates are those of the system.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .. import __version__
from ..errors import WeightsError
from ..progress import Progress

_BLOCK = 1 << 18
_TIMEOUT_S = 15.0
#: A transfer that broke off is taken up again this often, unless so many tries in a row brought
#: nothing.
_TRIES = 20
_FRUITLESS_TRIES = 3
#: How often the wish to cancel is looked at.
_TICK_S = 0.1


class TransferError(Exception):
    """The address could not be reached or broke off; the text is a reason, not a sentence."""


def sha256_of(path: Path, progress: Progress | None = None) -> str:
    """The sha256 of a file, in lower-case hex. Cancelable. Raises OSError."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while block := handle.read(1 << 22):
            digest.update(block)
            if progress is not None:
                progress.check()
    return digest.hexdigest()


def download_file(url: str, target: Path, n_bytes: int, sha256: str, progress: Progress) -> None:
    """Brings ``url`` to ``target``; both processes and threads may ask for the same file at once.

    Raises :class:`TransferError` when it does not arrive, :class:`WeightsError` when what arrives
    is not the expected file or cannot be written, and Cancelled. What arrived before a break or a
    cancel stays in ``<target>.part`` and is not fetched again.
    """
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _only_one(target.with_name(target.name + ".lock"), progress):
            if target.is_file() and sha256_of(target, progress) == sha256:
                return  # another process was faster
            _check_room(target.parent, n_bytes)
            resumed = part.is_file()
            _fill(url, part, n_bytes, progress)
            if resumed and sha256_of(part, progress) != sha256:
                part.unlink()  # the older bytes came from another file; start over, once
                _fill(url, part, n_bytes, progress)
            found = sha256_of(part, progress)
            if found != sha256:
                part.unlink()
                raise WeightsError(
                    f"What {url} sends is not {target.name}: its sha256 is {found}, "
                    f"expected {sha256}; it was not kept."
                )
            os.replace(part, target)
    except OSError as error:
        raise WeightsError(f"{target} cannot be written ({error.strerror or error}).") from error


def _check_room(folder: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < n_bytes:
        raise WeightsError(
            f"{folder} has {free / 1e6:.0f} MB free, but {n_bytes / 1e6:.0f} MB are needed."
        )


def _fill(url: str, part: Path, n_bytes: int, progress: Progress) -> None:
    """Appends to ``part`` until it has ``n_bytes``, over as many connections as it takes."""
    if _size(part) > n_bytes:
        part.unlink()  # of another file
    most, fruitless = _size(part), 0
    for _ in range(_TRIES):
        if _size(part) == n_bytes:
            return
        transfer = _Transfer(url, part, n_bytes)
        _watch(transfer, progress)
        if transfer.error is not None and not isinstance(transfer.error, _BrokenError):
            raise transfer.error
        if _size(part) > n_bytes:
            return  # the sha256 will say that it is not the file
        fruitless = 0 if _size(part) > most else fruitless + 1
        most = max(most, _size(part))
        if fruitless == _FRUITLESS_TRIES:
            break
        _wait(0.5 * fruitless, progress)
    if _size(part) != n_bytes:
        raise TransferError("the connection broke off again and again")


class _BrokenError(Exception):
    """A connection that ended too early; another try may go on from there."""


class _Transfer(threading.Thread):
    """One connection. A thread of its own, because a connection that hangs cannot be cancelled."""

    def __init__(self, url: str, part: Path, n_bytes: int) -> None:
        super().__init__(daemon=True)
        self.part = part
        self.n_bytes = n_bytes
        self.stopped = threading.Event()
        self.error: Exception | None = None
        self._url = url

    def run(self) -> None:
        try:
            self._copy()
        except Exception as error:  # handed to the thread that waits
            self.error = error

    def _copy(self) -> None:
        start = _size(self.part)
        with self._connect(start) as response:
            resumes = response.status == 206
            announced = response.headers.get("Content-Length")
            total = int(announced) + (start if resumes else 0) if announced else self.n_bytes
            if total != self.n_bytes:
                raise WeightsError(
                    f"{self._url} sends a file of {total} bytes instead of {self.n_bytes}: it is "
                    f"not {self.part.stem}, and nothing was kept."
                )
            if self.stopped.is_set():
                return
            # A server that does not know ranges sends the whole file again.
            with open(self.part, "ab" if resumes else "wb") as handle:
                while block := self._read(response):
                    if self.stopped.is_set():
                        return  # after the wait, too: another transfer may have begun by now
                    handle.write(block)
                    if handle.tell() > self.n_bytes:
                        return  # not the file, and perhaps without an end

    def _connect(self, start: int) -> http.client.HTTPResponse:
        headers = {"User-Agent": f"GlideReg/{__version__}"}
        if start:
            headers["Range"] = f"bytes={start}-"
        try:
            request = urllib.request.Request(self._url, headers=headers)
            return urllib.request.urlopen(request, timeout=_TIMEOUT_S)
        except urllib.error.HTTPError as error:
            if error.code == 416:  # what is there is not a beginning of this file
                self.part.unlink(missing_ok=True)
                raise _BrokenError from error
            raise TransferError(f"the server answers {error.code} {error.reason}") from error
        except urllib.error.URLError as error:
            reason = getattr(error.reason, "strerror", None) or error.reason
            raise TransferError(str(reason)) from error
        except (OSError, http.client.HTTPException) as error:
            raise _BrokenError from error

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        try:
            return response.read1(_BLOCK)
        except (OSError, http.client.HTTPException) as error:
            raise _BrokenError from error


def _watch(transfer: _Transfer, progress: Progress) -> None:
    """Waits for one connection, reporting; stops it when the user cancels."""
    transfer.start()
    try:
        while transfer.is_alive():
            transfer.join(_TICK_S)
            progress.update(min(_size(transfer.part) / transfer.n_bytes, 1.0))
    finally:
        transfer.stopped.set()
        transfer.join(_TICK_S)


def _wait(seconds: float, progress: Progress) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        progress.check()
        time.sleep(_TICK_S)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


@contextmanager
def _only_one(lock: Path, progress: Progress) -> Iterator[None]:
    """Lets one process at a time through; the system frees the lock when its holder dies."""
    with open(lock, "ab") as handle:
        told = False
        while not _try_lock(handle):
            if not told:
                progress.message("Another run is fetching the same file; waiting for it.")
                told = True
            _wait(2 * _TICK_S, progress)
        yield


def _try_lock(handle: BinaryIO) -> bool:
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
