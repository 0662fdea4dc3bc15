"""What a run stands on beside its pair: when any of it changes, the run is made again.

That is the code of this library, the packages below it, the weights of the encoder that the
settings lead to, files that the settings name, and the version of the peer that does the work.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

from .. import __version__
from ..errors import WeightsError
from ..features.decoders import SEGMENTERS
from ..features.encoders import ENCODERS, FETCHED, PREFERENCE
from ..features.weights import WeightsSpec, find
from ..methods import Method
from ..volume import content_hash

_PACKAGES = ("torch", "numpy", "scipy", "SimpleITK")
#: Modules of methods that take the encoder of the settings.
_ENCODING = ("glide", "samconvex", "samreg", "dinoreg")
#: What no run imports (the tests prove it): begins of paths below the package.
UNUSED = (
    "cli",
    "commission/",
    "propagation/",
    "report/",
    "tracking/",
    *(
        f"benchmark/{name}.py"
        for name in ("exports", "figures", "formats", "identity", "long_form", "output", "plan")
    ),
    *(f"benchmark/{name}.py" for name in ("runner", "segmenter", "statistics", "tables")),
)


def run_key(
    method: str, found: Method | None, settings: dict, masks: bool, fingerprint: str
) -> str:
    """The key of a run of a method (``found`` is None for a baseline) with plain settings on the
    pair of a fingerprint. The peer's own version is told by :func:`state_of_needs`."""
    decisive = [method, settings, masks, fingerprint, base_version()]
    decisive += [files_named(settings), encoder_weights(found, settings)]
    text = json.dumps(decisive, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def state_of_needs(method: Method | None, options: dict) -> dict[str, str] | None:
    """What the method needs -> its version or hash; None when something is missing here."""
    needs = method.needs if method is not None else ()
    needs = [need for need in needs if not options.get(need.option)]  # named: files_named has it
    if not all(need.found() for need in needs):
        return None
    return {need.what: need.identity() for need in needs}


def encoder_weights(method: Method | None, settings: dict) -> str:
    """Name and sha256 of the encoder weights that a run will use; nothing where it uses none.

    Weights that will be fetched count as if they were here. Files that the settings name are left
    to :func:`files_named`.
    """
    features = settings["features"]
    if method is None or method.module not in _ENCODING or features["encoder"] == "none":
        return ""
    if method.changes.get("features", {}).get("use", features["use"]) == "local":
        return ""
    own = list(SEGMENTERS) if method.module == "samreg" else list(ENCODERS)
    named = features["encoder"]
    names = [n for n in PREFERENCE if n in own] if named == "auto" else [named]
    return _at_hand([n for n in names if n in own], method.module == "samreg")


def _at_hand(names: list[str], decoder: bool) -> str:
    """The first encoder whose weights are here, else the one that would be fetched."""
    for name in names:
        try:
            located = find(_files(name, decoder))
        except WeightsError as error:  # the run will say so itself
            return str(error)
        if located is not None:
            return f"{name} {located.sha256}"
    for name in [n for n in FETCHED if n in names] or names:
        return f"{name} {_files(name, decoder)[0].sha256}"
    return ""


def _files(name: str, decoder: bool) -> list[WeightsSpec]:
    """The official files of an encoder; those with its mask decoder."""
    every = ENCODERS[name].weights
    return [w for w in every if not decoder or w.file_name in SEGMENTERS[name].files]


def files_named(settings: object) -> list[str]:
    """sha256 of every file that some plain settings name, in their order."""
    paths = [Path(text).expanduser() for text in _texts(settings) if 0 < len(text) < 4096]
    return [content_hash(path) for path in paths if path.is_file()]


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for _, part in sorted(value.items()):
            yield from _texts(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _texts(part)


@cache
def base_version() -> list[str]:
    """The library's version, a hash of its code, and the versions of what computes below it."""
    code = hash_of_code(Path(__file__).resolve().parents[1])
    return [__version__, code, *(metadata.version(name) for name in _PACKAGES)]


def hash_of_code(package: Path) -> str:
    """sha256 over the names and contents of a package's code, without :data:`UNUSED` parts. The
    version alone stays the same for months while the code changes."""
    total = hashlib.sha256()
    for path in sorted([*package.rglob("*.py"), *package.rglob("*.json")]):
        name = path.relative_to(package).as_posix()
        if not name.startswith(UNUSED):
            total.update(f"{name} {content_hash(path)} ".encode())
    return total.hexdigest()
