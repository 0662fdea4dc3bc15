"""How well the uncertainty predicts the error: ``python -m benchmarks.confidence DATA``.

Every pair is registered without encoder; voxels of the body that both images show are compared
with the truth, landmarks with the experts' (whose own error is about 1 mm). ``--fit`` also fits the
calibration again and prints the constants for ``GlideRegLib/confidence.py``; every row is then that
of a calibration without its anatomy. DATA is the folder of the real pairs.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from scipy.stats import spearmanr

from benchmarks.confidence_pairs import KNOWN, REAL, CheckedPair, make_pair
from benchmarks.cost import describe_run, describe_run_in_words
from GlideRegLib import confidence, pipeline
from GlideRegLib.geometry import Grid
from GlideRegLib.result import Result
from GlideRegLib.settings import Settings, with_changes
from GlideRegLib.volume import Volume, replace_whole

ROOT = Path(__file__).resolve().parents[1]
#: Which pairs run how: a preset, or a preset with another working spacing (mm).
RUNS: dict[str, tuple[str, ...]] = {
    "fast": (*KNOWN, *REAL),
    "fast 4": ("lidc", "popi", "lung1-1", "phantom-A0", "phantom-H1"),
    "standard": ("lidc-holes", "popi", "lung1-2", "phantom-H1", "phantom-X1", *REAL),
}
NAMES = tuple(confidence.EXPONENTS)
LEVELS = tuple(confidence.COVERAGE)
#: Added to an error before its logarithm is fitted, mm.
_SOFT_MM = 0.1


@dataclass(frozen=True)
class Sample:
    """Logarithms of the evidence (N, 3), each with its offset, and the true errors (N,) in mm."""

    evidence: np.ndarray
    errors: np.ndarray


@dataclass(frozen=True)
class Run:
    """One registration: its voxels (None without truth), the fixed landmarks (N, 3) in LPS mm and
    their errors, the evidence on its lattice, and what the estimate cost."""

    pair: str
    plan: str
    voxels: Sample | None
    landmarks: np.ndarray
    landmark_errors: np.ndarray
    evidence: confidence.Evidence
    lattice: Grid
    share_percent: float

    @property
    def anatomy(self) -> str:
        return KNOWN[self.pair][0] if self.pair in KNOWN else ""


@dataclass(frozen=True)
class Calibration:
    """The constants at the top of ``GlideRegLib/confidence.py``."""

    exponents: np.ndarray
    constant: float
    coverage: dict[int, float]

    def predict(self, evidence: np.ndarray) -> np.ndarray:
        """Expected errors (N,) in mm of voxels that were seen, as ``expected_error`` has them."""
        limits = np.log([confidence.SMALLEST_MM, confidence.UNKNOWN_MM])
        return np.exp(np.clip(evidence @ self.exponents + self.constant, *limits))

    def at_points(
        self, evidence: confidence.Evidence, grid: Grid, points: np.ndarray
    ) -> np.ndarray:
        """The uncertainty in mm at LPS points (N, 3), as the library would give it: (N,)."""
        exponents = dict(zip(NAMES, self.exponents.tolist(), strict=True))
        with mock.patch.multiple(confidence, EXPONENTS=exponents, CONSTANT=self.constant):
            values = confidence.expected_error(evidence).numpy()
        return confidence.sample_uncertainty(Volume(values, grid), points)


CURRENT = Calibration(
    np.array(list(confidence.EXPONENTS.values())), confidence.CONSTANT, confidence.COVERAGE
)


def run_pair(name: str, plan: str, data: Path) -> Run:
    """Registers one pair and gathers evidence and errors."""
    pair = make_pair(name, data)
    preset, _, spacing = plan.partition(" ")
    changes = {"grid": {"spacing_mm": float(spacing)}} if spacing else {}
    settings = with_changes(
        Settings.preset(preset), features={"encoder": "none"}, device="cpu", threads=1, **changes
    )
    kept, seconds = [], []

    def keep(evidence: confidence.Evidence) -> torch.Tensor:
        kept.append(evidence)
        return expected(evidence)

    def timed(*arguments: object) -> object:
        started = time.process_time()
        found = estimate(*arguments)
        seconds.append(time.process_time() - started)
        return found

    expected, estimate = confidence.expected_error, confidence.estimate_uncertainty
    started = time.process_time()
    with (
        mock.patch.object(confidence, "expected_error", keep),
        mock.patch.object(pipeline, "estimate_uncertainty", timed),
    ):
        result = pipeline.register(pair.fixed, pair.moving, settings)
    total = time.process_time() - started
    return Run(
        name,
        plan,
        _voxels(result, kept[0], pair),
        pair.landmarks[0],
        result.landmark_errors(*pair.landmarks)["after"],
        kept[0],
        result.uncertainty.grid,
        100 * seconds[0] / (total - seconds[0]),
    )


def _voxels(result: Result, evidence: confidence.Evidence, pair: CheckedPair) -> Sample | None:
    """The lattice's voxels in the body of the fixed image that both images show."""
    if pair.truth is None:
        return None
    grid = result.uncertainty.grid
    points = grid.to_physical(grid.index_tensor().reshape(3, -1).T.double().numpy())
    fixed = result.fixed_grid
    place = np.rint(fixed.to_index(points)).astype(int)
    chosen = np.all((place >= 0) & (place < fixed.size), axis=1)
    x, y, z = np.where(chosen[:, None], place, 0).T
    chosen &= result.body[z, y, x] & (evidence.seen.flatten().numpy() > 0.5)
    truth = points[chosen] + pair.truth.field.sample(points[chosen])
    errors = np.linalg.norm(result.transform_points(points[chosen]) - truth, axis=1)
    columns = [
        np.log(getattr(evidence, name).flatten().numpy()[chosen] + confidence.OFFSETS[name])
        for name in NAMES
    ]
    return Sample(np.stack(columns, axis=1), errors)


def fit(runs: list[Run]) -> Calibration:
    """Least squares on log errors, then the scale that meets the mean errors, then quantiles.

    Every pair counts the same, and n pairs of one anatomy as much as sqrt(n) anatomies.
    """
    weights = [1 / np.sqrt(sum(other.anatomy == run.anatomy for other in runs)) for run in runs]
    counts = [len(run.voxels.errors) for run in runs]
    each = np.repeat([w / n for w, n in zip(weights, counts, strict=True)], counts)
    evidence = np.concatenate([run.voxels.evidence for run in runs])
    errors = np.concatenate([run.voxels.errors for run in runs])
    root = np.sqrt(each)
    system = np.column_stack((evidence, np.ones(len(evidence)))) * root[:, None]
    solution = np.linalg.lstsq(system, np.log(errors + _SOFT_MM) * root, rcond=None)[0]
    found = Calibration(solution[:-1], float(solution[-1]), {})
    ratios = [run.voxels.errors.mean() / found.predict(run.voxels.evidence).mean() for run in runs]
    constant = found.constant + float(np.average(np.log(ratios), weights=weights))
    found = Calibration(found.exponents, constant, {})
    relative = errors / found.predict(evidence)
    order = np.argsort(relative)
    cumulative = np.cumsum(each[order]) / each.sum()
    places = [np.searchsorted(cumulative, level / 100) for level in LEVELS]
    coverage = {level: float(relative[order][p]) for level, p in zip(LEVELS, places, strict=True)}
    return Calibration(found.exponents, constant, coverage)


def calibration_without(runs: list[Run], anatomy: str) -> Calibration:
    """Fitted to all known pairs but those of one anatomy."""
    return fit([run for run in runs if run.voxels is not None and run.anatomy != anatomy])


_HEAD = """| pair | plan | voxels: error mm | expected mm | Spearman | within 50 / 90 / 95 % | \
landmarks: error mm | expected mm | Spearman | within 50 / 90 / 95 % | cost % |
|---|---|---|---|---|---|---|---|---|---|---|"""


def row(run: Run, calibration: Calibration) -> str:
    """One line of the table."""
    cells = [run.pair, run.plan]
    if run.voxels is None:
        cells += [""] * 4
    else:
        predicted = calibration.predict(run.voxels.evidence)
        cells += _cells(run.voxels.errors, predicted, calibration)
    expected = calibration.at_points(run.evidence, run.lattice, run.landmarks)
    cells += _cells(run.landmark_errors, expected, calibration)
    return "| " + " | ".join([*cells, f"{run.share_percent:.1f}"]) + " |"


def _cells(errors: np.ndarray, expected: np.ndarray, calibration: Calibration) -> list[str]:
    inside = [
        f"{100 * np.mean(errors <= factor * expected):.0f}"
        for factor in calibration.coverage.values()
    ]
    rank = spearmanr(errors, expected).statistic
    return [f"{errors.mean():.2f}", f"{expected.mean():.2f}", f"{rank:.2f}", " / ".join(inside)]


def main(arguments: list[str] | None = None) -> int:
    """Prints the table and writes ``confidence.md``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.confidence", description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--fit", action="store_true", help="fit and print the constants")
    parser.add_argument("--plan", action="append", choices=tuple(RUNS), help="only these runs")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "Resources" / "benchmarks")
    chosen = parser.parse_args(arguments)
    runs = []
    for plan in chosen.plan or RUNS:
        for name in RUNS[plan]:
            runs.append(run_pair(name, plan, chosen.data))
            print(row(runs[-1], CURRENT), flush=True)
    known = [run for run in runs if run.voxels is not None]
    lines = [_HEAD]
    for run in runs:
        lines.append(row(run, calibration_without(known, run.anatomy) if chosen.fit else CURRENT))
    text = "\n".join(_document(lines, chosen.fit, fit(known) if chosen.fit else None)) + "\n"
    print(text)
    chosen.output.mkdir(parents=True, exist_ok=True)
    replace_whole(chosen.output / "confidence.md", partial(_write, text))
    return 0


def _document(lines: list[str], fitted: bool, found: Calibration | None) -> list[str]:
    """The table between what it was made on and how to read it."""
    option = " --fit" if fitted else ""
    head = ["# The uncertainty against the true errors", "", describe_run_in_words(describe_run(1))]
    head += ["", f"Command: `python -m benchmarks.confidence DATA{option}`", ""]
    notes = [
        "",
        "Within 50 / 90 / 95 %: the share of errors below the expected error times the factor of "
        "that level. Cost: CPU time of the estimate against the rest of the run.",
        "Known pairs are semi-synthetic or phantoms; landmarks of real pairs (lung, mr) are placed "
        "with an error of about 1 mm of their own, which no estimate can foresee.",
    ]
    if found is None:
        return [*head, *lines, *notes]
    notes.append("Every row: with a calibration to which its anatomy was unknown.")
    powers = ", ".join(
        f'"{name}": {power:.3f}' for name, power in zip(NAMES, found.exponents, strict=True)
    )
    factors = ", ".join(f"{level}: {factor:.2f}" for level, factor in found.coverage.items())
    constants = [f"EXPONENTS = {{{powers}}}", f"CONSTANT = {found.constant:.3f}"]
    constants.append(f"COVERAGE = {{{factors}}}")
    return [*head, *lines, *notes, "", "All known pairs together:", "", "```", *constants, "```"]


def _write(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
