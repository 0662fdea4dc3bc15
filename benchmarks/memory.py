"""Memory predicted against measured: ``python -m benchmarks.memory DATA``.

Each configuration runs in a process of its own, with one iteration for each level: iterations cost
time, not memory. DATA is the folder of the real pairs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks.cost import child_environment, describe_run, describe_run_in_words
from GlideRegLib.settings import Settings, with_changes

ROOT = Path(__file__).resolve().parents[1]
MR = "liver_mr_breathing/subject19"
PAIRS = {
    "lung": ("lung_followup/baseline.mha", "lung_followup/followup.mha"),
    "mr": (f"{MR}/exhMaster.nii.gz", f"{MR}/cyc_1_6.nii.gz"),
    "lung1": ("thorax_lung1/LUNG1-001_ct.nii.gz", "thorax_lung1/LUNG1-002_ct.nii.gz"),
    "popi": ("thorax_popi00/popi_phase00_ct.nii.gz",) * 2,
    "lidc": ("thorax_lidc0001/LIDC-IDRI-0001_ct.nii.gz",) * 2,
}
#: Pair, preset, encoder, spacing in mm. The last five took no part in fitting the prediction.
CONFIGURATIONS = (
    ("lung", "fast", "none", 2.0),
    ("lung", "standard", "none", 1.5),
    ("lung", "fast", "mobile_sam", 2.0),
    ("mr", "fast", "none", 2.0),
    ("mr", "standard", "mobile_sam", 1.5),
    ("lung1", "fast", "none", 2.0),
    ("popi", "fast", "none", 3.0),
    ("lidc", "standard", "none", 2.5),
    ("lung", "standard", "mobile_sam", 1.8),
    ("mr", "fine", "mobile_sam", 1.25),
    ("popi", "fast", "mobile_sam", 2.5),
    ("lung1", "fast", "none", 3.0),
)


def short(preset: str, encoder: str, spacing: float) -> Settings:
    """The settings of a preset with as few iterations as there can be."""
    base = with_changes(
        Settings.preset(preset),
        features={"encoder": encoder, "cache": False},
        grid={"spacing_mm": spacing},
        reduction={"warm_up": 5, "steps_per_update": 1},
        device="cpu",
        threads=2,
    )
    levels = base.refine.levels
    levels = tuple(replace(level, iterations=1, cg_iterations=2) for level in levels)
    return replace(base, refine=replace(base.refine, levels=levels))


def run_child(fixed: Path, moving: Path, settings: dict) -> None:
    """Registers one pair and prints its cost as JSON."""
    from GlideRegLib import machine

    machine.configure_process()
    from GlideRegLib.pipeline import register
    from GlideRegLib.volume import read_volume

    result = register(read_volume(fixed), read_volume(moving), Settings.from_dict(settings))
    print(json.dumps(result.report["cost"]))


def measure(data: Path, configuration: tuple[str, str, str, float]) -> str:
    """One row of the table."""
    name, preset, encoder, spacing = configuration
    images = [str(data / file) for file in PAIRS[name]]
    settings = json.dumps(short(preset, encoder, spacing).to_dict())
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", str(data), "--child", *images, settings],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=child_environment(2),
    )
    row = f"| {name} | {preset} | {encoder} | {spacing:g} |"
    if done.returncode:
        return f"{row} failed | | |"
    cost = json.loads(done.stdout.splitlines()[-1])
    predicted, peak = cost["predicted_memory_mb"], cost["peak_memory_mb"]
    return f"{row} {predicted:.0f} | {peak:.0f} | {predicted / peak:.2f} |"


def main(arguments: list[str] | None = None) -> int:
    """Prints the table and writes ``memory.md``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "Resources" / "benchmarks")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.child:
        fixed, moving, settings = chosen.child
        run_child(Path(fixed), Path(moving), json.loads(settings))
        return 0
    lines = [
        "| pair | preset | encoder | spacing mm | predicted MB | measured MB | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    head = ["# Memory predicted before the run, against the largest resident memory", ""]
    head += [describe_run_in_words(describe_run(2)), ""]
    foot = ["", "`python -m benchmarks.memory DATA`; the last five took no part in the fit."]
    chosen.output.mkdir(parents=True, exist_ok=True)
    for configuration in CONFIGURATIONS:
        lines.append(measure(chosen.data, configuration))
        print(lines[-1], flush=True)
        # After each row: a session that ends keeps what it has.
        text = "\n".join([*head, *lines, *foot]) + "\n"
        (chosen.output / "memory.md").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
