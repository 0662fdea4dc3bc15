"""Do the global features help where the local ones fail: ``python -m benchmarks.global_features``.

The hard cases of ``benchmarks.constraints`` without landmark pairs: local features alone, with a
foundation model, with the same network of random weights, and the foundation model alone.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from benchmarks.constraints import CASES, ROOT, Case, given_start
from benchmarks.cost import describe_run, describe_run_in_words
from GlideRegLib.pipeline import register
from GlideRegLib.sample_data.local import data_folder
from GlideRegLib.settings import Settings, with_changes

_HARD = ["turned", "far", "extreme", "lung-wrong", "mr-wrong"]


def variants(encoder: str) -> dict[str, dict]:
    """Changes of the features, by the name of the table's column."""
    both = {"encoder": encoder}
    return {
        "local": {"encoder": "none"},
        "local and global": both,
        "local and random weights": {**both, "random_weights": True},
        "global": {**both, "use": "global"},
    }


def run_case(case: Case, data: Path, encoder: str, scratch: Path) -> dict[str, str]:
    """Mean errors in mm of all landmarks: before, and after with each variant."""
    fixed, moving, points = case.make(data)
    changes = {"grid": case.grid, "initial": given_start(case, fixed, scratch), "threads": 1}
    found = {}
    for name, features in variants(encoder).items():
        settings = with_changes(Settings.preset("fast"), features=features, **changes)
        errors = register(fixed, moving, settings).landmark_errors(*points)
        found["before"] = f"{errors['before'].mean():.2f}"
        found[name] = f"{errors['after'].mean():.2f}"
    return found


def main(arguments: list[str] | None = None) -> int:
    """Runs the cases and writes the table anew after each."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.global_features", description=__doc__
    )
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=_HARD)
    parser.add_argument("--encoder", default="mobile_sam")
    parser.add_argument("--data", type=Path, help="folder of the real data")
    output = ROOT / "Resources" / "benchmarks" / "global-features.md"
    parser.add_argument("-o", "--output", type=Path, default=output)
    chosen = parser.parse_args(arguments)
    names = ["before", *variants("")]
    lines = [
        "# Global features where local ones fail: `python -m benchmarks.global_features`",
        "",
        describe_run_in_words(describe_run(1)),
        f"Load {os.getloadavg()[0]:.0f}, encoder {chosen.encoder}. Mean landmark error, mm.",
        "",
        f"| case | {' | '.join(names)} |",
        "|---" * (len(names) + 1) + "|",
    ]
    for name in chosen.cases:
        case = CASES[name]
        with tempfile.TemporaryDirectory(prefix="glidereg-global-") as scratch:
            found = run_case(case, chosen.data or data_folder(), chosen.encoder, Path(scratch))
        what = case.what.removesuffix(" (the plain run copes)")
        lines.append(f"| {what} | {' | '.join(found[column] for column in names)} |")
        print(lines[-1], flush=True)
        chosen.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
