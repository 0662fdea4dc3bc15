"""The ablation table: what each part of the method contributes, on pairs with landmarks.

Rows follow Table 3 of the GLIDE-Reg paper (local only, global only, PCA, static, dynamic), with an
encoder of random weights as the control.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from .errors import InputError, SettingsError
from .landmarks import read_landmark_pair
from .progress import Progress
from .sample_data.local import data_folder
from .settings import Settings, with_changes
from .volume import Volume, read_volume

PAIRS = ("phantom", "phantom-hard", "phantom-extreme", "semi-synthetic", "lung", "mr")

#: Row name -> changes of the settings.
VARIANTS: dict[str, dict] = {
    "local only": {"features": {"use": "local"}},
    "global only (dynamic)": {"features": {"use": "global"}, "reduction": {"kind": "dynamic"}},
    "global + local, PCA": {"reduction": {"kind": "pca"}},
    "global + local, static VAE": {"reduction": {"kind": "static"}},
    "global + local, dynamic VAE": {"reduction": {"kind": "dynamic"}},
    "global + local, random encoder": {"features": {"random_weights": True}},
}


@dataclass(frozen=True)
class AblationPair:
    """A pair with corresponding landmarks (N, 3) in LPS mm, and label maps where there are."""

    name: str
    fixed: Volume
    moving: Volume
    landmarks: tuple[np.ndarray, np.ndarray]
    labels: tuple[Volume, Volume] | None = None


def run_ablation(
    names: list[str], data: str | None, encoder: str, preset: str, progress: Progress
) -> list[dict]:
    """Runs every variant on every pair; returns rows of plain values for the table.

    ``data`` is the folder of the real data (needed for all but the phantoms). Raises
    :class:`SettingsError` for an unknown pair.
    """
    unknown = sorted(set(names) - set(PAIRS))
    if unknown:
        raise SettingsError(f"There is no pair '{unknown[0]}'; choose from {', '.join(PAIRS)}.")
    base = with_changes(Settings.preset(preset), features={"encoder": encoder})
    rows = []
    for name in names:
        pair = load_pair(name, Path(data) if data else None)
        for variant, changes in VARIANTS.items():
            progress.message(f"{pair.name}: {variant}")
            rows.append(_run_one(pair, variant, with_changes(base, **changes), progress))
    return rows


def _run_one(pair: AblationPair, variant: str, settings: Settings, progress: Progress) -> dict:
    from .pipeline import register

    quiet = Progress(should_cancel=progress.cancel_wanted)
    started = time.monotonic()
    result = register(pair.fixed, pair.moving, settings, quiet)
    measures = result.landmark_quality(*pair.landmarks)
    tre, seconds = measures["tre_mm"], result.report["cost"]["seconds"]
    return {
        "pair": pair.name,
        "variant": variant,
        "encoder": result.report["encoder"]["name"],
        "tre_before": tre["before"]["mean"],
        "tre_mean": tre["after"]["mean"],
        "tre_median": tre["after"]["median"],
        "tre_p95": tre["after"]["p95"],
        "mean_dice": (
            result.label_quality(*pair.labels)["mean_dice"]["after"] if pair.labels else None
        ),
        "folding_body": result.report["quality"]["folding_percent"]["body"],
        "seconds_beyond_encoding": time.monotonic() - started - seconds.get("encode", 0.0),
    }


def load_pair(name: str, data: Path | None) -> AblationPair:
    """One of :data:`PAIRS`."""
    if name.startswith("phantom"):
        from .sample_data.phantom import PRESETS, make_phantom_pair

        pair = make_phantom_pair(**PRESETS[name.partition("-")[2] or "breathing"])
    elif name == "semi-synthetic":
        from .sample_data.semisynthetic import popi_pair

        pair = popi_pair(data)
    else:
        return _real_pair(name, data or data_folder())
    return AblationPair(
        name if name.startswith("phantom") else pair.name,
        pair.fixed,
        pair.moving,
        (pair.fixed_landmarks, pair.moving_landmarks),
        (pair.fixed_labels, pair.moving_labels),
    )


def _real_pair(name: str, data: Path) -> AblationPair:
    if name == "lung":
        folder = data / "lung_followup"
        images = [folder / "baseline.mha", folder / "followup.mha"]
        points = [[folder / f"{p.stem}_points51.txt"] for p in images]
    else:
        folder = data / "liver_mr_breathing" / "subject23"
        images = [folder / "exhMaster.nii.gz", folder / "cyc_1_4.nii.gz"]
        points = [
            [folder / f"{p.name[:-7]}_landmarks_{part}.csv" for part in ("liver", "outside")]
            for p in images
        ]
    if not images[0].is_file():
        raise InputError(f"'{images[0]}' does not exist; check the data folder.")
    pairs = [read_landmark_pair(*files) for files in zip(*points, strict=True)]
    landmarks = tuple(np.vstack([pair[side].points for pair in pairs]) for side in (0, 1))
    return AblationPair(name, read_volume(images[0]), read_volume(images[1]), landmarks)


def print_table(console: Console, rows: list[dict]) -> None:
    """Prints the rows, a block per pair."""
    table = Table(title="Ablation (TRE in mm, research use only)")
    for column in (
        "pair",
        "variant",
        "TRE before",
        "mean",
        "median",
        "95th",
        "Dice",
        "folding %",
        "seconds*",
    ):
        table.add_column(column, justify="left" if column in ("pair", "variant") else "right")
    last = None
    for row in rows:
        if last not in (None, row["pair"]):
            table.add_section()
        dice = row["mean_dice"]
        table.add_row(
            row["pair"] if row["pair"] != last else "",
            row["variant"],
            f"{row['tre_before']:.2f}",
            f"{row['tre_mean']:.3f}",
            f"{row['tre_median']:.3f}",
            f"{row['tre_p95']:.2f}",
            "-" if dice is None else f"{dice:.3f}",
            f"{row['folding_body']:.4f}",
            f"{row['seconds_beyond_encoding']:.1f}",
        )
        last = row["pair"]
    console.print(table)
    console.print(f"* without encoding; encoder: {rows[-1]['encoder'] if rows else '-'}")
