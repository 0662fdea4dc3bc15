"""What a process costs, and which machine it runs on."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from contextlib import suppress
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

from GlideRegLib import machine

_ROOT = Path(__file__).resolve().parents[1]


def cpu_seconds() -> float:
    """CPU time of this process and its ended children."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def peak_memory_mb() -> float:
    """Largest resident memory of this process, MiB. Linux counts what the parent held at the
    start into ``ru_maxrss``; the high-water mark of the process itself does not."""
    with suppress(OSError, AttributeError):
        text = Path("/proc/self/status").read_text(encoding="ascii")
        return int(re.search(r"VmHWM:\s+(\d+) kB", text)[1]) / 1024
    return machine.peak_memory_mb()


def load_average() -> float | None:
    """Processes that wanted a core over the last minute, others' included."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def child_environment(threads: int) -> dict[str, str]:
    """The environment that makes every library use that many threads, without spinning."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {
        **os.environ,
        **dict.fromkeys((*names, "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"), str(threads)),
        "OMP_WAIT_POLICY": "PASSIVE",
        "KMP_BLOCKTIME": "0",
    }


def describe_run(threads: int) -> dict:
    """Date, machine, versions, for the head of a table. No host or user names."""
    import psutil

    packages = {}
    for name in ("torch", "numpy", "scipy", "SimpleITK"):
        packages[name] = metadata.version(name)
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "cpu": _cpu_name(),
            "cores": machine.usable_cores(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
            "gpu": _gpu_name(),
        },
        "threads": threads,
        "python": platform.python_version(),
        "packages": packages,
    }


def describe_run_in_words(run: dict) -> str:
    """The head of a table as one line."""
    about, packages = run["machine"], run["packages"]
    versions = ", ".join(f"{name} {version}" for name, version in packages.items())
    return (
        f"{run['date']}, commit {run['commit']}; {about['cpu']}, {about['cores']} cores, "
        f"{about['memory_gib']} GiB, {about['gpu']}; {run['threads']} threads; {about['system']}, "
        f"Python {run['python']}, {versions}."
    )


def _commit() -> str:
    with suppress(OSError, subprocess.CalledProcessError):
        words = ["git", "-C", str(_ROOT)]
        head = subprocess.check_output([*words, "rev-parse", "--short", "HEAD"], text=True).strip()
        changed = subprocess.check_output(
            [*words, "status", "--porcelain", "--", "GlideRegLib", "benchmarks"], text=True
        )
        return head + (" with local changes" if changed.strip() else "")
    return "unknown"


def _cpu_name() -> str:
    with suppress(OSError, TypeError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        return re.search(r"model name\s*:\s*(.+)", text)[1].strip()
    return platform.processor() or "CPU of unknown name"


def _gpu_name() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
