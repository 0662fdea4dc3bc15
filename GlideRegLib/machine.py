"""The machine that computes: device, threads, memory."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import MemoryExceededError, SettingsError

#: What to do when nothing more can be given up.
OUT_OF_MEMORY = (
    "The run does not fit into memory; take a coarser preset (fast), a larger spacing, "
    "or --device cpu."
)


def configure_process() -> None:
    """To be called before torch is loaded: idle threads sleep instead of spinning.

    On a shared machine spinning makes small operations twenty times slower.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("KMP_BLOCKTIME", "0")


def lower_priority() -> None:
    """Lets others on this machine go first, so that a desktop stays usable during a run."""
    import psutil

    with suppress(psutil.Error, OSError):
        idle = getattr(psutil, "BELOW_NORMAL_PRIORITY_CLASS", 10)  # Windows has classes
        psutil.Process().nice(idle)


def resolve_device(name: str) -> str:
    """ "cpu" or "cuda" for a setting of "auto", "cpu" or "cuda". Raises SettingsError."""
    import torch

    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise SettingsError(
            "Device 'cuda' was asked for, but PyTorch sees no CUDA GPU here; use --device cpu or "
            "install a CUDA build of PyTorch."
        )
    return "cuda" if name != "cpu" and available else "cpu"


def set_threads(count: int) -> int:
    """Sets the CPU threads of torch (0: all cores); returns the number in use."""
    import torch

    torch.set_num_threads(count or usable_cores())
    return torch.get_num_threads()


def usable_cores() -> int:
    """Cores that this process may use (cluster schedulers restrict them)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_memory_mb() -> float:
    """The largest resident memory of this process so far, MiB."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage: on Linux that begins with the memory of the program that started this one
        # (a Slicer with large volumes, say).
        lines = status.read_text(encoding="utf-8").splitlines()
        line = next((x for x in lines if x.startswith("VmHWM:")), None)
        if line is not None:
            return int(line.split()[1]) / 2**10
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return psutil.Process().memory_info().peak_wset / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def resident_memory_mb() -> float:
    """The resident memory of this process now, MiB."""
    import psutil

    return psutil.Process().memory_info().rss / 2**20


def free_memory_mb(device: str) -> float:
    """Memory that is free on the device, MiB."""
    if device == "cuda":
        import torch

        return torch.cuda.mem_get_info()[0] / 2**20
    import psutil

    return psutil.virtual_memory().available / 2**20


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory gave out, on the CPU or on the GPU."""
    text = str(error).lower()
    if isinstance(error, MemoryError | MemoryExceededError):
        return True
    return "out of memory" in text or "allocate memory" in text


def release_memory(device: str) -> None:
    """Gives back what a failed step left behind."""
    gc.collect()
    if device == "cuda":
        import torch

        torch.cuda.empty_cache()


@contextmanager
def readable_memory_errors() -> Iterator[None]:
    """Turns an out-of-memory failure into a sentence that says what to do."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise MemoryExceededError(OUT_OF_MEMORY) from error
        raise
