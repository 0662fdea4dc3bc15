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
from statistics import median

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
from GlideRegLib.settings import Settings, with_changes
from GlideRegLib.volume import Volume, read_volume, replace_whole

ROOT = Path(__file__).resolve().parents[1]
#: Spacings in mm of the phantom's 320 x 256 x 320 mm: from 0.4 to 3.3 megavoxels.
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
    parser.add_argument("--repeat", type=int, default=2, help="runs of each size")
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
    runs: list[dict] = []
    with tempfile.TemporaryDirectory(prefix="glidereg-scaling-") as scratch:
        folders = {spacing: Path(scratch) / str(spacing) for spacing in SPACINGS}
        for spacing, folder in folders.items():
            make_phantom(folder, spacing)
        for _ in range(chosen.repeat):
            for spacing, folder in folders.items():
                runs.append(measure_child(folder, spacing, chosen))
                print(runs[-1], flush=True)
        folder = folders[PROFILED]
        measure_child(folder, PROFILED, chosen, profile=True)
        operators = (folder / "operators.txt").read_text(encoding="utf-8")
    rows = [medians([run for run in runs if run["spacing_mm"] == s]) for s in SPACINGS]
    head = {"run": describe_run(chosen.threads), "preset": chosen.preset, "encoder": chosen.encoder}
    text = markdown(rows, head)
    title = f"{describe_run_in_words(head['run'])}\nPhantom at {PROFILED} mm, preset "
    operators = f"{title}{chosen.preset}, encoder {chosen.encoder}.\n\n{operators}"
    content = json.dumps({**head, "rows": rows, "runs": runs, "fit": fits(rows)}, indent=1) + "\n"
    for name, value in (
        ("scaling.md", text),
        ("scaling.json", content),
        ("operators.txt", operators),
    ):
        replace_whole(chosen.output / name, partial(_write_text, value))
    print(text, operators, sep="\n")
    return 0


def medians(runs: list[dict]) -> dict:
    """One row from the runs of one size; the seconds of stages are the first run's."""
    row = dict(runs[0])
    for name in ("wall_s", "cpu_s", "peak_mb", "idle_mb", "load"):
        row[name] = median(run[name] or 0.0 for run in runs)
    return row


def make_phantom(folder: Path, spacing: float) -> None:
    """The phantom pair at a spacing (mm), as files."""
    from GlideRegLib.sample_data.phantom import make_phantom_pair
    from GlideRegLib.volume import write_volume

    size = tuple(round(length / spacing) for length in EXTENT_MM)
    pair = make_phantom_pair(size=size, spacing=(spacing,) * 3)
    folder.mkdir(parents=True, exist_ok=True)
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

    settings = with_changes(
        Settings.preset(chosen.preset),
        threads=chosen.threads,
        grid={"spacing_mm": spacing},
        features={"encoder": chosen.encoder, "cache": False},
    )
    pair = [read_volume(folder / name) for name in NATIVE]
    voxels = _working_voxels(pair[0], settings)
    idle = peak_memory_mb()
    before, started = cpu_seconds(), time.monotonic()
    if profile:
        table, result = _profiled(partial(register, *pair, settings))
        _write_text(table, folder / "operators.txt")
    else:
        result = register(*pair, settings)
    stages = result.report["cost"]["seconds"]
    cost = {
        "megavoxels": voxels / 1e6,
        "wall_s": time.monotonic() - started,
        "cpu_s": cpu_seconds() - before,
        "peak_mb": peak_memory_mb(),
        "idle_mb": idle,
        "stages_s": stages,
    }
    _write_text(json.dumps(cost), folder / "cost.json")


def _working_voxels(fixed: Volume, settings: Settings) -> int:
    """Voxels of the working grid: the body and a margin, sizes rounded up to multiples of 16."""
    from GlideRegLib.prepare import body_mask, detect_modality, normalize_intensity, working_grid

    modality = detect_modality(fixed)
    body = body_mask(normalize_intensity(fixed, modality), modality)
    grid = settings.grid
    return working_grid(fixed.grid, body, grid.spacing_mm, grid.margin_mm).voxel_count


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
        "volumes to result; the affine start, which hardly depends on the size, is a column of its "
        "own. Megavoxels of the working grid. Command: `python -m benchmarks.scaling`.",
        "",
        "| spacing mm | megavoxels | wall s | CPU s | CPU s / Mvoxel | start s | peak MB | load |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        lines.append(
            f"| {row['spacing_mm']:.1f} | {row['megavoxels']:.2f} | {row['wall_s']:.1f} "
            f"| {row['cpu_s']:.1f} | {row['cpu_s'] / row['megavoxels']:.1f} "
            f"| {row['stages_s']['align']:.1f} | {row['peak_mb']:.0f} | {row['load'] or 0:.1f} |"
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
