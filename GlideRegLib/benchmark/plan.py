"""What a benchmark consists of: every method on every pair, each run with a key and a folder.

A run's folder is ``runs/DATASET/PAIR/METHOD``. It counts when its record holds the key of the run:
a hash over the method, its settings, the library's version and the contents of the pair's files.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .. import __version__, machine
from ..errors import InputError
from ..progress import Progress
from ..settings import Settings
from . import segmenter
from .datasets import Pair, open_dataset, with_structures
from .run_one import RECORD


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
        """The record, when it is whole and of this very run."""
        try:
            record = json.loads((self.folder / RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return record if record.get("key") == self.content["key"] else None


def plan_runs(job: BenchmarkJob, progress: Progress) -> Iterator[Run]:
    """Every method on every pair. Raises :class:`InputError` when there is nothing to compare."""
    seen: set[str] = set()
    named: dict[str, Path] = {}
    count = 0
    for name in job.datasets:
        dataset = open_dataset(name, job.split, Path(job.data) if job.data else None)
        if dataset.name in seen:
            raise InputError(f"Two of the data sets are called '{dataset.name}'; rename one.")
        seen.add(dataset.name)
        for pair in dataset.pairs():
            if job.pairs and pair.identifier not in job.pairs:
                continue
            progress.check()
            common = {
                "dataset": name if not Path(name).exists() else str(Path(name).resolve()),
                "dataset_name": dataset.name,
                "about": dataset.about,
                "split": job.split,
                "data": job.data,
                "structures": _structures(job, dataset.name, pair, named, progress),
                "pair": pair.identifier,
                "masks": job.masks,
            }
            fingerprint = pair.fingerprint()
            for method in job.methods:
                count += 1
                yield _run(job, common, method, fingerprint)
    if not count:
        raise InputError("None of the data sets has such a pair.")


def _check_stems(pair: Pair, named: dict[str, Path]) -> None:
    """A folder of structures goes by the names of images, so each must mean one image."""
    for stem, path in zip(pair.stems or (), pair.files.values(), strict=False):
        if named.setdefault(stem, path) != path:
            raise InputError(
                f"Two different images are called '{stem}', so their structures cannot be told "
                "apart; name the structures in a CSV manifest instead."
            )


def _structures(
    job: BenchmarkJob, dataset: str, pair: Pair, named: dict[str, Path], progress: Progress
) -> str | None:
    """The folder with the pair's structures, segmented when that is wanted; None: its own.
    ``named`` holds the images that were found by name so far."""
    if job.structures and with_structures(pair, Path(job.structures)) is not pair:
        _check_stems(pair, named)
        return str(Path(job.structures).resolve())
    if not job.segment or pair.read_structures is not None:
        return None
    folder = Path(job.output).joinpath("structures", *map(_as_folder, (dataset, pair.identifier)))
    device = machine.resolve_device(job.settings.device)
    for role, read in (("fixed", pair.read_fixed), ("moving", pair.read_moving)):
        if not (folder / role).is_dir():
            progress.message(f"TotalSegmentator: {dataset} {pair.identifier}, {role} image.")
            segmenter.segment(read(), folder / role, device, progress.check)
    return str(folder.resolve())


def _run(job: BenchmarkJob, common: dict, method: str, fingerprint: str) -> Run:
    settings = {**job.settings.to_dict(), "method": "glide", "method_options": {}}
    if method in job.method_options:
        # Options are checked by the method itself, which this makes the settings' own.
        settings.update(method=method, method_options=job.method_options[method])
    content = {**common, "method": method, "settings": settings}
    decisive = [method, settings, job.masks, common["structures"], fingerprint, __version__]
    text = json.dumps(decisive, sort_keys=True)
    content["key"] = hashlib.sha256(text.encode()).hexdigest()[:16]
    content["keep_fields"] = job.keep_fields
    parts = [_as_folder(common[name]) for name in ("dataset_name", "pair")]
    folder = Path(job.output).joinpath("runs", *parts, method).resolve()
    return Run(folder, {**content, "folder": str(folder)})


def _as_folder(name: str) -> str:
    """A name as one folder that every system takes."""
    return re.sub(r"[^\w.+-]+", "_", name).strip(".") or "_"
