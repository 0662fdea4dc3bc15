"""Every method behind ``glidereg register --method`` on some pairs: one Markdown table.

``python -m benchmarks.method_table --pairs lung mr --methods glide-local convexadam``. A method is
a name or ``NAME:JSON`` with options. Each run has a process of its own; what cannot run says why.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from benchmarks.cost import child_environment, describe_run, describe_run_in_words, load_average
from GlideRegLib.ablation import PAIRS, load_pair
from GlideRegLib.errors import GlideRegError
from GlideRegLib.geometry import transform_points
from GlideRegLib.methods import METHODS, find
from GlideRegLib.quality import landmark_errors
from GlideRegLib.settings import Settings, with_changes
from GlideRegLib.volume import replace_whole

ROOT = Path(__file__).resolve().parents[1]
HEAD = (
    "pair",
    "method",
    "before",
    "start",
    "TRE mean",
    "median",
    "folds body %",
    "method s",
    "total s",
    "peak MB",
    "load",
)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options; ends with a sentence when a pair is unknown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.method_table", description=__doc__)
    parser.add_argument("--pairs", nargs="+", choices=PAIRS, default=["lung", "mr"])
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--encoder", default="none")
    parser.add_argument("--initial", default="auto", help="auto, or none: the pair as it is")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--limit", type=float, default=1800.0, help="seconds for one run")
    parser.add_argument("--data", type=Path, help="folder of the real data")
    parser.add_argument("--name", default="methods", help="name of the file written")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "Resources" / "benchmarks")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Runs everything; the table is written anew after every run."""
    words = sys.argv[1:] if arguments is None else arguments
    chosen = parse(words)
    if chosen.one:
        print("\n" + json.dumps(run_here(chosen.pairs[0], chosen.methods[0], chosen)))
        return 0
    head = [
        "# Methods",
        "",
        f"`python -m benchmarks.method_table {' '.join(shown(words))}`",
        "",
        describe_run_in_words(describe_run(chosen.threads)),
        "",
        "TRE in mm at the landmarks: as the pair is, after the start that all are given, and after "
        "the method. Seconds: the method alone, and the whole run with start and measures. "
        "Research use only.",
        "",
        "| " + " | ".join(HEAD) + " |",
        "|" + "---|" * len(HEAD),
    ]
    rows: list[str] = []
    for pair in chosen.pairs:
        for method in chosen.methods:
            row = run_apart(pair, method, chosen)
            rows.append(table_row(pair, method, row))
            print(rows[-1], flush=True)
            text = "\n".join([*head, *rows]) + "\n"
            path = chosen.output / f"{chosen.name}.md"
            replace_whole(path, lambda p, text=text: p.write_text(text, encoding="utf-8"))
    return 0


def shown(words: list[str]) -> list[str]:
    """The arguments without folders, which may hold names of people; JSON in quotes."""
    skipped = {"-o", "--output", "--data"}
    kept = [
        word for k, word in enumerate(words) if word not in skipped and words[k - 1] not in skipped
    ]
    return [f"'{word}'" if "{" in word else word for word in kept]


def run_apart(pair: str, method: str, chosen: argparse.Namespace) -> dict:
    """One run in a process of its own; what went wrong is its ``problem``."""
    try:
        problem = find(method.partition(":")[0]).missing()
    except GlideRegError as error:
        problem = str(error)
    if problem:
        return {"problem": problem}
    words = [sys.executable, "-m", "benchmarks.method_table", "--one"]
    words += ["--pairs", pair, "--methods", method, "--preset", chosen.preset]
    words += ["--encoder", chosen.encoder, "--initial", chosen.initial]
    words += ["--threads", str(chosen.threads)]
    words += ["--data", str(chosen.data)] if chosen.data else []
    load = load_average()
    try:
        done = subprocess.run(
            words,
            cwd=ROOT,
            env=child_environment(chosen.threads),
            capture_output=True,
            text=True,
            timeout=chosen.limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"problem": f"did not finish within {chosen.limit:.0f} s"}
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no word of why"]
        return {"problem": lines[-1].replace("|", "/")[:200]}
    return {**json.loads(done.stdout.strip().splitlines()[-1]), "load": load}


def run_here(name: str, method: str, chosen: argparse.Namespace) -> dict:
    """One run in this process: its measures and costs."""
    pair = load_pair(name, chosen.data)
    name, _, options = method.partition(":")
    settings = with_changes(
        Settings.preset(chosen.preset),
        method=name,
        method_options=json.loads(options or "{}"),
        initial=chosen.initial,
        threads=chosen.threads,
        features={"encoder": chosen.encoder, "cache": False},
    )
    result = find(name).register(pair.fixed, pair.moving, settings)
    tre = result.landmark_quality(*pair.landmarks)["tre_mm"]
    first, second = pair.landmarks
    seconds = result.report["cost"]["seconds"]
    working = [seconds.get(stage, 0.0) for stage in ("encode", "reduce", "convex", "refine")]
    return {
        "before": tre["before"]["mean"],
        "start": float(landmark_errors(transform_points(result.initial, first), second).mean()),
        "mean": tre["after"]["mean"],
        "median": tre["after"]["median"],
        "folds": result.report["quality"]["folding_percent"]["body"],
        "seconds": sum(working),
        "total": seconds["total"],
        "memory": result.report["cost"]["peak_memory_mb"],
    }


def table_row(pair: str, method: str, row: dict) -> str:
    """A line of the table."""
    if row.get("problem"):
        return f"| {pair} | {method} | {row['problem']} |" + " |" * (len(HEAD) - 3)
    cells = [f"{row[key]:.2f}" for key in ("before", "start", "mean", "median")]
    cells += [f"{row['folds']:.4f}", f"{row['seconds']:.1f}", f"{row['total']:.1f}"]
    cells += [f"{row['memory']:.0f}", f"{row['load']:.1f}"]
    return "| " + " | ".join([pair, method, *cells]) + " |"


if __name__ == "__main__":
    sys.exit(main())
