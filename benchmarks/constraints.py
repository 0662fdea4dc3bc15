"""Do six landmark pairs help where the plain run fails: ``python -m benchmarks.constraints``.

Each case runs twice, without and with six pairs, which on phantoms carry an observer's error (0.7
mm along each axis). Only the other landmarks are measured.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from benchmarks.cost import describe_run, describe_run_in_words
from benchmarks.pairs import _breathing
from GlideRegLib.ablation import load_pair
from GlideRegLib.field import affine_to_sitk
from GlideRegLib.pipeline import register
from GlideRegLib.sample_data.local import data_folder
from GlideRegLib.sample_data.phantom import PRESETS, make_phantom_pair
from GlideRegLib.settings import Settings, with_changes
from GlideRegLib.volume import Volume

ROOT = Path(__file__).resolve().parents[1]
_COARSE = {"size": (80, 64, 80), "spacing": (4.0, 4.0, 4.0)}
Points = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Case:
    """``make`` gives both images and landmarks (N, 3) in LPS mm; ``hard``: the plain run is
    expected to fail; ``start``: "auto", "none", or shift (mm) and rotation (degrees about x, y, z
    through the fixed image's center) of a wrong given start; ``noise`` mm of an observer."""

    what: str
    make: Callable[[Path], tuple[Volume, Volume, Points]]
    hard: bool
    start: str | tuple[tuple[float, ...], tuple[float, ...]] = "auto"
    noise: float = 0.7
    grid: dict = field(default_factory=lambda: {"spacing_mm": 4.0})


def _phantom(**settings: object) -> Callable[[Path], tuple[Volume, Volume, Points]]:
    def make(_: Path) -> tuple[Volume, Volume, Points]:
        pair = make_phantom_pair(**{**_COARSE, **settings})
        return pair.fixed, pair.moving, (pair.fixed_landmarks, pair.moving_landmarks)

    return make


def _lung(data: Path) -> tuple[Volume, Volume, Points]:
    loaded = load_pair("lung", data)
    return loaded.fixed, loaded.moving, loaded.landmarks


def _mr(name: str) -> Callable[[Path], tuple[Volume, Volume, Points]]:
    return lambda data: _breathing(name, data)


_TURNED = {"rotation": (10.0, 20.0, 50.0), "offset": (20.0, -15.0, 60.0)}
_FAR = {"rotation": (10.0, 10.0, 20.0), "offset": (30.0, -20.0, -70.0)}
_TEXTURE = {"amplitude": 90.0, "noise": 120.0, "decorrelation": 1.0, "vessel_targets": 200}
_WRONG = ((25.0, -20.0, 60.0), (15.0, 0.0, 25.0))
_REAL: dict = {"noise": 0.0, "grid": {"spacing_mm": 2.0}}
CASES = {
    "phantom": Case("phantom, easy", _phantom(), False),
    "lung": Case("lung CT (real), easy", _lung, False, **_REAL),
    "mr": Case("MR 23 1_4 (real), easy", _mr("mr23-1_4"), False, **_REAL),
    "turned": Case(
        "phantom, the patient lies turned by 50 degrees",
        _phantom(noise=45.0, decorrelation=0.5, **_TURNED),
        True,
    ),
    "far": Case(
        "phantom, large motion, texture without partner, start as is",
        _phantom(**_TEXTURE, **_FAR),
        True,
        "none",
    ),
    "extreme": Case(
        "phantom X1, start wrong by 68 mm and 29 degrees",
        _phantom(**PRESETS["extreme"], seed=1),
        True,
        _WRONG,
    ),
    "lung-wrong": Case(
        "lung CT (real), start wrong by 68 mm and 29 degrees (the plain run copes)",
        _lung,
        False,
        _WRONG,
        **_REAL,
    ),
    "mr-wrong": Case(
        "MR 23 1_4 (real), start wrong by 68 mm and 29 degrees",
        _mr("mr23-1_4"),
        True,
        _WRONG,
        **_REAL,
    ),
}


def six_far_apart(points: np.ndarray) -> np.ndarray:
    """Rows of six landmarks, each the farthest from those before."""
    chosen = [int(np.argmax(np.linalg.norm(points - points.mean(axis=0), axis=1)))]
    while len(chosen) < 6:
        gaps = np.linalg.norm(points[:, None] - points[chosen], axis=2).min(axis=1)
        chosen.append(int(gaps.argmax()))
    return np.array(chosen)


def run_case(case: Case, data: Path, scratch: Path) -> dict[str, float]:
    """Mean errors in mm of the other landmarks: before, plain, guided; and folds in percent."""
    fixed, moving, (fixed_points, moving_points) = case.make(data)
    start = given_start(case, fixed, scratch)
    changes = {"features": {"encoder": "none"}, "grid": case.grid, "initial": start, "threads": 1}
    settings = with_changes(Settings.preset("fast"), **changes)
    rows = six_far_apart(fixed_points)
    others = np.setdiff1d(np.arange(len(fixed_points)), rows)
    placed = np.random.default_rng(1).normal(0, 1, (6, 3)) * case.noise
    guides = fixed_points[rows], moving_points[rows] + placed
    found: dict[str, float] = {"n": len(others)}
    for name, given in (("plain", None), ("guided", guides)):
        result = register(fixed, moving, settings, landmark_constraints=given)
        errors = result.landmark_errors(fixed_points[others], moving_points[others])
        found["before"] = float(errors["before"].mean())
        found[name] = float(errors["after"].mean())
        found["folds"] = float(result.report["quality"]["folding_percent"]["body"])
    return found


def given_start(case: Case, fixed: Volume, scratch: Path) -> str:
    """The setting ``initial`` of a case; a wrong start becomes a file."""
    if isinstance(case.start, str):
        return case.start
    file = str(scratch / "start.tfm")
    sitk.WriteTransform(affine_to_sitk(_wrong_start(fixed.grid.center, case.start)), file)
    return file


def _wrong_start(center: np.ndarray, wrong: tuple) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", wrong[1], degrees=True).as_matrix()
    matrix[:3, 3] = center + wrong[0] - matrix[:3, :3] @ center
    return matrix


def main(arguments: list[str] | None = None) -> int:
    """Runs the cases and writes the table anew after each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.constraints", description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--data", type=Path, help="folder of the real data")
    output = ROOT / "Resources" / "benchmarks" / "constraints.md"
    parser.add_argument("-o", "--output", type=Path, default=output)
    chosen = parser.parse_args(arguments)
    lines = [
        "# Six landmark pairs: `python -m benchmarks.constraints`",
        "",
        describe_run_in_words(describe_run(1)),
        f"Load {os.getloadavg()[0]:.0f}. Mean error in mm of the landmarks that guided nothing.",
        "",
        "| case | n | before | plain | with six pairs | ratio | asked for | folds in the body % |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in chosen.cases:
        case = CASES[name]
        with tempfile.TemporaryDirectory(prefix="glidereg-constraints-") as scratch:
            found = run_case(case, chosen.data or data_folder(), Path(scratch))
        ratio = found["guided"] / found["plain"]
        lines.append(
            f"| {case.what} | {found['n']} | {found['before']:.2f} | {found['plain']:.2f} | "
            f"{found['guided']:.2f} | {ratio:.2f} | {'at most 0.50' if case.hard else 'no growth'} "
            f"| {found['folds']:.4f} |"
        )
        print(lines[-1], flush=True)
        chosen.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
