"""Cost over four sizes of the phantom, and where the time goes: ``python -m benchmarks.scaling``.

The same chest at four spacings, each registered on a working grid of that spacing in a process of
its own; then one size again under torch's profiler.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.cost import (
    child_environment,
    cpu_seconds,
    describe_run,
    describe_run_in_words,
    load_average,
    peak_memory_mb,
)
from benchmarks.images import NATIVE
from GlideRegLib.volume import replace_whole

ROOT = Path(__file__).resolve().parents[1]
#: Spacings in mm of the phantom's 320 x 256 x 320 mm: each has about twice the voxels of the last.
SPACINGS = (4.0, 3.2, 2.5, 2.0)
PROFILED = 2.5
EXTENT_MM = (320.0, 256.0, 320.0)
OPERATORS = 15


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options; ``--child`` is what the command starts itself with."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--preset", default="standard", help="its levels; the spacing is set")
    parser.add_argument("--encoder", default="none")
    parser.add_argument("--threads", type=int, choices=(1, 2), default=2)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "Resources" / "benchmarks")
    parser.add_argument(
        "--child", nargs=3, metavar=("FOLDER", "SPACING", "PROFILE"), help=argparse.SUPPRESS
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Prints and writes ``scaling.md``, ``scaling.json`` and ``operators.txt``."""
    chosen = parse(arguments)
    if chosen.child:
        run_child(Path(chosen.child[0]), float(chosen.child[1]), chosen.child[2] == "1", chosen)
        return 0
    rows = []
    with tempfile.TemporaryDirectory(prefix="glidereg-scaling-") as scratch:
        for spacing in SPACINGS:
            make_phantom(Path(scratch), spacing)
            rows.append(measure_child(Path(scratch), spacing, chosen))
            print(rows[-1], flush=True)
        make_phantom(Path(scratch), PROFILED)
        measure_child(Path(scratch), PROFILED, chosen, profile=True)
        operators = (Path(scratch) / "operators.txt").read_text(encoding="utf-8")
    head = {"run": describe_run(chosen.threads), "preset": chosen.preset, "encoder": chosen.encoder}
    text = markdown(rows, head)
    title = f"{describe_run_in_words(head['run'])}\nPhantom at {PROFILED} mm, preset "
    operators = f"{title}{chosen.preset}, encoder {chosen.encoder}.\n\n{operators}"
    content = json.dumps({**head, "rows": rows, "fit": fits(rows)}, indent=1) + "\n"
    for name, value in (
        ("scaling.md", text),
        ("scaling.json", content),
        ("operators.txt", operators),
    ):
        replace_whole(chosen.output / name, partial(_write_text, value))
    print(text, operators, sep="\n")
    return 0


def make_phantom(folder: Path, spacing: float) -> None:
    """The phantom pair at a spacing (mm), as files."""
    from GlideRegLib.sample_data.phantom import make_phantom_pair
    from GlideRegLib.volume import write_volume

    size = tuple(round(length / spacing) for length in EXTENT_MM)
    pair = make_phantom_pair(size=size, spacing=(spacing,) * 3)
    for name, volume in zip(NATIVE, (pair.fixed, pair.moving), strict=True):
        write_volume(folder / name, volume)


def measure_child(
    folder: Path, spacing: float, chosen: argparse.Namespace, profile: bool = False
) -> dict:
    """Runs one registration in its own process; raises CalledProcessError when it failed."""
    load = load_average()
    words = [sys.executable, "-m", "benchmarks.scaling", "--threads", str(chosen.threads)]
    words += ["--preset", chosen.preset, "--encoder", chosen.encoder]
    words += ["--child", str(folder), str(spacing), str(int(profile))]
    subprocess.run(
        words,
        cwd=ROOT,
        env=child_environment(chosen.threads),
        check=True,
    )
    cost = json.loads((folder / "cost.json").read_text(encoding="utf-8"))
    return {"spacing_mm": spacing, **cost, "load": load}


def run_child(folder: Path, spacing: float, profile: bool, chosen: argparse.Namespace) -> None:
    """One registration; writes ``cost.json`` and, profiled, ``operators.txt``."""
    from GlideRegLib.pipeline import register
    from GlideRegLib.settings import Settings, with_changes
    from GlideRegLib.volume import read_volume

    settings = with_changes(
        Settings.preset(chosen.preset),
        threads=chosen.threads,
        grid={"spacing_mm": spacing},
        features={"encoder": chosen.encoder, "cache": False},
    )
    pair = [read_volume(folder / name) for name in NATIVE]
    idle = peak_memory_mb()
    before, started = cpu_seconds(), time.monotonic()
    if profile:
        table, result = _profiled(partial(register, *pair, settings))
        _write_text(table, folder / "operators.txt")
    else:
        result = register(*pair, settings)
    stages = result.report["cost"]["seconds"]
    cost = {
        "megavoxels": pair[0].grid.voxel_count / 1e6,
        "wall_s": time.monotonic() - started,
        "cpu_s": cpu_seconds() - before,
        "peak_mb": peak_memory_mb(),
        "idle_mb": idle,
        "stages_s": stages,
    }
    _write_text(json.dumps(cost), folder / "cost.json")


def _profiled(run: partial) -> tuple[str, object]:
    """The operator table of a run, and what it returned."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        result = run()
    averages = profiler.key_averages()
    return averages.table(sort_by="self_cpu_time_total", row_limit=OPERATORS), result


def fits(rows: list[dict]) -> dict[str, dict[str, float]]:
    """Straight lines through cost over megavoxels, and the exponent of cost beyond the constant.

    ``exponent``: slope of log(cost - constant at zero voxels) over log(voxels) from the smallest to
    the largest size, 1 for linear growth (for memory the constant is what the process holds idle).
    """
    size = np.array([row["megavoxels"] for row in rows])
    found = {}
    for name in ("wall_s", "cpu_s", "peak_mb"):
        cost = np.array([row[name] for row in rows])
        slope, constant = np.polyfit(size, cost, 1)
        rest = cost - slope * size - constant
        spread = ((cost - cost.mean()) ** 2).sum()
        base = min(row["idle_mb"] for row in rows) if name == "peak_mb" else 0.0
        grown = np.log((cost[-1] - base) / (cost[0] - base)) / np.log(size[-1] / size[0])
        found[name] = {
            "per_megavoxel": float(slope),
            "constant": float(constant),
            "r_squared": float(1 - (rest**2).sum() / spread),
            "exponent": float(grown),
        }
    return found


def markdown(rows: list[dict], head: dict) -> str:
    """The table of four sizes."""
    lines = ["# Cost over four sizes", "", describe_run_in_words(head["run"]), ""]
    lines += [
        f"Phantom, preset {head['preset']} with encoder {head['encoder']}, whole run from read "
        "volumes to result (affine start included). Command: `python -m benchmarks.scaling`.",
        "",
        "| spacing mm | megavoxels | wall s | CPU s | CPU s / megavoxel | peak MB | load |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        lines.append(
            f"| {row['spacing_mm']:.1f} | {row['megavoxels']:.2f} | {row['wall_s']:.1f} "
            f"| {row['cpu_s']:.1f} | {row['cpu_s'] / row['megavoxels']:.1f} "
            f"| {row['peak_mb']:.0f} | {row['load'] or 0:.1f} |"
        )
    lines += ["", "| cost | per megavoxel | constant | R² of the line | exponent |"]
    lines += ["|---|---:|---:|---:|---:|"]
    for name, fit in fits(rows).items():
        lines.append(
            f"| {name} | {fit['per_megavoxel']:.1f} | {fit['constant']:.1f} "
            f"| {fit['r_squared']:.3f} | {fit['exponent']:.2f} |"
        )
    lines += [
        "",
        "Exponent: of the growth from the smallest to the largest size, 1 is linear (memory: "
        "beyond what the process holds before it starts). Load: processes that wanted a core, "
        "others' included.",
    ]
    return "\n".join(lines) + "\n"


def _write_text(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
