"""What a benchmark consists of: every method on every pair, each run with a key and a folder.

A run's folder is ``runs/DATASET/PAIR/METHOD``. It counts when its record holds the key of the run:
a hash over the method, its settings, the contents of the pair's files, and what :mod:`.identity`
lists.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .. import machine
from ..errors import InputError
from ..methods import find
from ..progress import Progress
from ..settings import Settings, with_changes
from . import segmenter
from .baselines import BASELINES
from .datasets import Dataset, Pair, open_dataset, structure_places, with_structures
from .identity import run_key, state_of_needs
from .run_one import FIELD, RECORD

#: Names that Windows keeps for devices.
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.I)
#: So many pairs are listed when one is not there.
_LISTED = 12


@dataclass(frozen=True)
class BenchmarkJob:
    """What is compared: data sets (names or paths), methods, the folder of the results.

    ``settings`` count for all methods; ``method_options`` holds each method's own by its name.
    ``pairs`` keeps only these identifiers. ``masks``: given to the methods that take masks.
    ``structures``: see :func:`.datasets.with_structures`. ``segment``: TotalSegmentator makes them
    for pairs that have none. ``limit_seconds`` ends a run.
    """

    datasets: tuple[str, ...]
    methods: tuple[str, ...]
    output: str
    settings: Settings = field(default_factory=Settings)
    method_options: dict[str, dict] = field(default_factory=dict)
    split: str | None = None
    data: str | None = None
    structures: str | None = None
    segment: bool = False
    pairs: tuple[str, ...] = ()
    masks: bool = False
    keep_fields: bool = True
    jobs: int = 1
    limit_seconds: float = 3600.0


@dataclass(frozen=True)
class Run:
    """One method on one pair: what the child process is told, and where it writes."""

    folder: Path
    content: dict

    @property
    def label(self) -> str:
        c = self.content
        return f"{c['dataset_name']} {c['pair']}, {c['method']}"

    def finished(self) -> dict | None:
        """The record, when it is whole and of this very run. Where the method's peer is missing
        now, a record counts whatever the peer's version was."""
        try:
            record = json.loads((self.folder / RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        needs = self.content["needs"]
        same = record.get("key") == self.content["key"]
        return record if same and needs in (None, record.get("needs")) else None

    def complete(self) -> bool:
        """Whether there is nothing left to be made: also the field, where that is wanted."""
        wanted = self.content["keep_fields"]
        return self.finished() is not None and (not wanted or (self.folder / FIELD).is_file())


@dataclass(frozen=True)
class _Part:
    """A pair with its data set: as it was given, opened, and the folder DATASET/PAIR of both."""

    given: str
    dataset: Dataset
    pair: Pair
    folder: Path


def plan_runs(job: BenchmarkJob, progress: Progress) -> Iterator[Run]:
    """Every method on every pair. Raises :class:`InputError` when there is nothing to compare."""
    parts = _parts(job)
    named: dict[str, Path] = {}
    for part in parts:
        progress.check()
        structures = _structures(job, part, len(parts), named, progress)
        common = {
            "dataset": part.given,
            "dataset_name": part.dataset.name,
            "about": part.dataset.about,
            "split": job.split,
            "data": job.data,
            "structures": None if structures is None else str(structures.resolve()),
            "pair": part.pair.identifier,
            "masks": job.masks,
            "jobs": job.jobs,
            "keep_fields": job.keep_fields,
        }
        fingerprint = with_structures(part.pair, structures).fingerprint()
        folder = Path(job.output).resolve() / "runs" / part.folder
        for method in job.methods:
            yield _run(job, common, method, fingerprint, folder / method)


def _parts(job: BenchmarkJob) -> list[_Part]:
    """The pairs that take part; every wanted one must be there."""
    data = Path(job.data) if job.data else None
    opened = [(name, open_dataset(name, job.split, data)) for name in job.datasets]
    names = [dataset.name for _, dataset in opened]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"Two of the data sets are called '{twice}'; rename one.")
    found, known = [], []
    for given, dataset in opened:
        path = str(Path(given).resolve()) if Path(given).exists() else given
        pairs = dataset.pairs()
        known += (own := [pair.identifier for pair in pairs])
        for pair in pairs:
            if not job.pairs or pair.identifier in job.pairs:
                folder = Path(folder_name(dataset.name, names), folder_name(pair.identifier, own))
                found.append(_Part(path, dataset, pair, folder))
    if strangers := [name for name in job.pairs if name not in known]:
        some = ", ".join(known[:_LISTED]) + (", ..." if len(known) > _LISTED else "")
        raise InputError(
            f"None of the data sets has the pair '{strangers[0]}'; their pairs are {some}."
        )
    return found


def folder_name(name: str, all_names: Iterable[str] = ()) -> str:
    """A name as one folder that every system takes, and that no other name has: where characters
    are replaced, or another of ``all_names`` differs in capitals only, a hash of it is added."""
    plain = re.sub(r"[^\w.+-]+", "_", name).strip(".") or "_"
    like = {other for other in all_names if other.casefold() == name.casefold()}
    if plain == name and like <= {name} and not _RESERVED.fullmatch(plain):
        return plain
    return f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _structures(
    job: BenchmarkJob, part: _Part, count: int, named: dict[str, Path], progress: Progress
) -> Path | None:
    """The folder with the pair's structures, segmented when that is wanted; None: its own.
    ``count`` pairs take part; ``named`` holds the images that were found by name so far."""
    if job.structures and (found := structure_places(part.pair, Path(job.structures))):
        _check_places(part.pair, found.kind, count, named)
        return Path(job.structures)
    if not job.segment or part.pair.read_structures is not None:
        return None
    return _segmented(job, part, progress)


def _check_places(pair: Pair, kind: str, count: int, named: dict[str, Path]) -> None:
    """A folder of structures must mean one pair, and the name of an image one image."""
    if kind == "alone" and count > 1:
        raise InputError(
            "The folder of structures holds 'fixed' and 'moving', which can belong to one pair "
            f"only; put them into a folder per pair ('{pair.identifier}/fixed')."
        )
    stems = zip(pair.stems or (), pair.files.values(), strict=False)
    for stem, path in stems if kind == "images" else ():
        if named.setdefault(stem, path) != path:
            raise InputError(
                f"Two different images are called '{stem}', so their structures cannot be told "
                f"apart; put them into a folder per pair ('{pair.identifier}/fixed')."
            )


def _segmented(job: BenchmarkJob, part: _Part, progress: Progress) -> Path | None:
    """The folder of TotalSegmentator's masks of these very images, made where it is not there;
    None when that failed, which is told and ends nothing."""
    pair = part.pair
    place = f"{part.folder.name}-{pair.images_fingerprint()[:12]}"
    folder = Path(job.output, "structures", part.folder.parent, place)
    device = machine.resolve_device(job.settings.device)
    name = f"{part.dataset.name} {pair.identifier}"
    try:
        for role, read in (("fixed", pair.read_fixed), ("moving", pair.read_moving)):
            if not (folder / role).is_dir():
                progress.message(f"TotalSegmentator: {name}, {role} image.")
                segmenter.segment(read(), folder / role, device, progress.check)
    except InputError as error:
        progress.message(f"{name} has no structures: {error}", level="warning")
        return None
    return folder


def _run(job: BenchmarkJob, common: dict, method: str, fingerprint: str, folder: Path) -> Run:
    # What another run has encoded would make this one look fast.
    timed = with_changes(job.settings, features={"cache": False})
    settings = {**timed.to_dict(), "method": "glide", "method_options": {}}
    options = job.method_options.get(method)
    if options is not None:
        # Options are checked by the method itself, which this makes the settings' own.
        settings.update(method=method, method_options=options)
    found = None if method in BASELINES else find(method)
    content = {
        **common,
        "method": method,
        "settings": settings,
        "key": run_key(method, found, settings, job.masks, fingerprint),
        "needs": state_of_needs(found, options or {}),
        "folder": str(folder),
    }
    return Run(folder, content)
