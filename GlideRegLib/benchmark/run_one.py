"""One method on one pair in this process: ``python -m GlideRegLib.benchmark.run_one JOB.json``.

Writes ``record.json`` (and ``displacement.nii.gz``) into the folder that the job names. A problem
that a person can act on becomes one sentence in ``problem.txt`` there and exit code 2.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .. import machine
from ..errors import GlideRegError
from ..redaction import with_roles, without_names
from ..volume import replace_whole, write_image

if TYPE_CHECKING:
    from ..methods import Method
    from .datasets import Pair

PROBLEM = "problem.txt"
RECORD = "record.json"
FIELD = "displacement.nii.gz"


def main(job_file: str, should_cancel: Callable[[], bool] | None = None) -> int:
    """Runs the job until ``should_cancel`` says no; returns the exit code."""
    machine.configure_process()
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    folder = Path(job["folder"])
    files: dict[str, Path] = {}
    try:
        pair = open_pair(job)
        files = pair.files
        record = run(job, pair, folder, should_cancel)
    except GlideRegError as error:
        problem = without_names(with_roles(str(error), files))
        (folder / PROBLEM).write_text(problem, encoding="utf-8")
        return error.exit_code
    text = json.dumps(record, indent=1, allow_nan=False) + "\n"
    # Last of all: a folder without a record is a run that did not end.
    replace_whole(folder / RECORD, lambda path: path.write_text(text, encoding="utf-8"))
    return 0


def open_pair(job: dict) -> Pair:
    """The pair of the job; nothing is read yet."""
    from .datasets import open_dataset, with_structures

    data = Path(job["data"]) if job.get("data") else None
    dataset = open_dataset(job["dataset"], job.get("split"), data)
    pair = next(pair for pair in dataset.pairs() if pair.identifier == job["pair"])
    return with_structures(pair, Path(job["structures"]) if job.get("structures") else None)


def run(
    job: dict, pair: Pair, folder: Path, should_cancel: Callable[[], bool] | None = None
) -> dict:
    """Reads the pair and all that it is measured with, registers it (only this is timed), measures;
    the record as plain values."""
    from ..progress import Progress
    from ..settings import Settings
    from .baselines import load, register_baseline
    from .measure import check_structures, measure, read_points

    settings = Settings.from_dict(job["settings"])
    fixed, moving = pair.read_fixed(), pair.read_moving()
    points = read_points(pair, fixed, moving)
    check_structures(pair)
    method = load(job["method"], settings.method_options)
    masks = {}
    if job.get("masks") and method is not None and method.takes_masks and pair.read_masks:
        masks = dict(zip(("fixed_mask", "moving_mask"), pair.read_masks(), strict=True))
    machine.set_threads(settings.threads)
    progress = Progress(should_cancel=should_cancel)
    before, started = _cpu_seconds(), time.monotonic()
    if method is None:
        result = register_baseline(job["method"], fixed, moving, settings, progress)
    else:
        result = method.register(fixed, moving, settings, progress, **masks)
    cost = {
        "seconds": round(time.monotonic() - started, 3),
        "cpu_seconds": round(_cpu_seconds() - before, 3),
        "peak_memory_mb": peak_memory_mb(method),
        "peak_gpu_memory_mb": _peak_gpu_memory_mb(),
    }
    if job.get("keep_fields"):
        write_image(folder / FIELD, result.total_field().to_sitk())
    return {
        **{name: job[name] for name in ("key", "needs", "jobs", "dataset_name", "pair", "method")},
        "masks": bool(masks),
        "cost": cost,
        "measures": measure(result, pair, points),
        "encoder": result.report.get("encoder", {}).get("name"),
        "messages": result.report.get("messages", []),
        "device": _device(settings.device),
        "versions": _versions(result.report),
    }


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def peak_memory_mb(method: Method | None) -> float | None:
    """The largest resident memory of one process of this run, MiB: of this one, or of a program
    that it ran. None where the system does not tell that of programs that have ended (Windows)."""
    own = machine.peak_memory_mb()
    if method is not None and method.runs_programs:
        try:
            import resource
        except ImportError:
            return None
        # On Linux a program begins with the memory of the process that started it: this one, so
        # the larger of both is right all the same.
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        own = max(own, peak / (2**20 if sys.platform == "darwin" else 2**10))
    return round(own, 1)


def _wish_to_end() -> Callable[[], bool]:
    """Whether somebody has asked this process to end. It does at the method's next step, and with
    it the programs that the method runs; who asked kills what does not give way."""
    asked: list[int] = []
    for name in ("SIGTERM", "SIGHUP"):  # Windows knows no SIGHUP
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda number, _: asked.append(number))
    return lambda: bool(asked)


def _peak_gpu_memory_mb() -> float | None:
    import torch

    if not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return None
    return round(torch.cuda.max_memory_allocated() / 2**20, 1)


def _device(name: str) -> str:
    """The device in words."""
    import torch

    if machine.resolve_device(name) == "cuda":
        return torch.cuda.get_device_name()
    return f"CPU, {torch.get_num_threads()} threads"


def _versions(report: dict) -> dict[str, str]:
    """What the result says of the packages that made it; else the library's own."""
    from importlib import metadata

    from .. import __version__

    own = {"glidereg": __version__, "torch": metadata.version("torch")}
    return {**own, **report.get("provenance", {}).get("versions", {})}


if __name__ == "__main__":
    code = main(sys.argv[1], _wish_to_end())
    sys.stdout.flush()
    os._exit(code)  # some packages crash while they are unloaded; everything is written
