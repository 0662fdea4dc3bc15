"""Our method and its peers side by side: ``python -m benchmarks.peers``.

Each method runs in its own process, alternating, with the same affine start and images.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import SimpleITK as sitk

from benchmarks.cost import child_environment, describe_run, load_average
from benchmarks.images import REMARKS
from benchmarks.measure import measure
from benchmarks.methods import METHODS, Method
from benchmarks.pairs import PAIRS, StartedPair, make_pair
from benchmarks.table import write_table
from GlideRegLib.errors import GlideRegError

ROOT = Path(__file__).resolve().parents[1]


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options; ends with a sentence when a name is unknown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--pairs", nargs="+", choices=list(PAIRS), default=list(PAIRS))
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--repeat", type=int, default=1, help="runs of each method on each pair")
    parser.add_argument("--threads", type=int, choices=(1, 2), default=2)
    parser.add_argument("--limit", type=float, default=3600.0, help="seconds for one run")
    parser.add_argument("--data", type=Path, help="folder of the real data")
    parser.add_argument("--name", default="peers", help="name of the files written")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "Resources" / "benchmarks")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Runs everything; the table is written anew after every pair."""
    chosen = parse(arguments)
    methods = [METHODS[name] for name in chosen.methods]
    missing = [method.missing for method in methods if method.missing]
    print(*missing, sep="\n")
    methods = [method for method in methods if not method.missing]
    head = {
        "run": describe_run(chosen.threads),
        "command": "python -m benchmarks.peers " + " ".join(shown(arguments or sys.argv[1:])),
        "pairs": {name: PAIRS[name] for name in chosen.pairs},
        "methods": {m.name: f"{m.package} {m.version}, {m.note}".lstrip() for m in methods},
        "missing": missing,
    }
    runs: list[dict] = []
    with tempfile.TemporaryDirectory(prefix="glidereg-peers-") as scratch:
        for name in chosen.pairs:
            try:
                pair = make_pair(name, Path(scratch) / name, chosen.data)
            except GlideRegError as error:
                print(f"{name}: {error}")
                missing.append(f"pair {name}: {error}")
                continue
            runs.append(start_row(pair))
            print_run(runs[-1])
            for repetition in range(chosen.repeat):
                for method in methods if repetition % 2 == 0 else methods[::-1]:
                    runs.append(run_method(method, pair, Path(scratch) / name, chosen))
                    print_run(runs[-1])
            path = write_table(chosen.output, chosen.name, runs, head)
    if not runs:
        return 2
    print(path.read_text(encoding="utf-8"))
    print(f"Written: {path}")
    return 0


def shown(arguments: list[str]) -> list[str]:
    """The arguments without folders: they often hold names of people."""
    kept, skip = [], False
    for word in arguments:
        if word in ("-o", "--output", "--data"):
            skip = True
        elif skip:
            skip = False
        else:
            kept.append(word)
    return kept


def start_row(pair: StartedPair) -> dict:
    """The affine start alone, which all methods are given."""
    row = {"pair": pair.name, "method": "(affine start)", "peer": False, **measure(pair, None)}
    return {**row, "voxels": pair.common.voxel_count}


def run_method(method: Method, pair: StartedPair, folder: Path, chosen: argparse.Namespace) -> dict:
    """One run in a process of its own; what went wrong becomes the row's ``problem``."""
    field, cost = folder / "field.mha", folder / "cost.json"
    remarks = folder / REMARKS
    for file in (field, cost, remarks):
        file.unlink(missing_ok=True)
    row = {"pair": pair.name, "method": method.name, "peer": method.is_peer}
    row["load"] = load_average()
    words = [sys.executable, "-m", "benchmarks.run_one", method.name, str(folder)]
    log = folder / "log.txt"
    try:
        with log.open("w", encoding="utf-8") as stream:
            subprocess.run(
                [*words, str(chosen.threads)],
                cwd=ROOT,
                env=child_environment(chosen.threads),
                stdout=stream,
                stderr=subprocess.STDOUT,
                timeout=chosen.limit,
                check=False,
            )
    except subprocess.TimeoutExpired:
        return {**row, "problem": f"did not finish within {chosen.limit:.0f} s"}
    if not cost.is_file():
        return {**row, "problem": f"failed: {last_line(log)}"}
    return {
        **row,
        **json.loads(cost.read_text(encoding="utf-8")),
        "remarks": remarks.read_text(encoding="utf-8").splitlines() if remarks.is_file() else [],
        **measure(pair, sitk.ReadImage(str(field))),
    }


def last_line(log: Path) -> str:
    """The last line that a failed process printed, fit for a table cell."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].replace("|", "/")[:160] if lines else "no word of why"


def print_run(run: dict) -> None:
    """One line as a run ends."""
    if run.get("problem"):
        text = run["problem"]
    else:
        text = f"TRE {run['tre_mean']:.2f} / {run['tre_median']:.2f} mm"
        text += f", folds {run['folding_body']:.4f} / {run['folding_grid']:.4f} %"
        if "cpu_s" in run:
            text += f", {run['wall_s']:.1f} s, CPU {run['cpu_s']:.1f} s, {run['peak_mb']:.0f} MB"
    print(f"{run['pair']:10} {run['method']:20} {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
