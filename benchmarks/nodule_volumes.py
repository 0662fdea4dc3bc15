"""One click against the truth of the follow-up phantom: ``python -m benchmarks.nodule_volumes``.

Every nodule is clicked at its center and at points beside it in both scans; the table holds the
error of the volume, and of the change between the scans. ``--seeds`` makes other chests.
"""

from __future__ import annotations

import argparse
from collections import defaultdict

import numpy as np

from GlideRegLib.errors import InputError
from GlideRegLib.sample_data.nodule_phantom import NodulePair, PhantomNodule, make_nodule_phantom
from GlideRegLib.tracking.measures import measure
from GlideRegLib.tracking.segment import segment_nodule

#: How far beside the center the clicks are, mm.
CLICKS = (0.0, 1.0, 1.5, 2.0)
#: The classes of the table: true diameter (mm) from and below.
CLASSES = ((4.0, 5.99), (5.99, 9.99), (9.99, 25.0))
HEADER = """\
| kind | diameter, mm | clicks | not found | mean error, % | mean size of error, % | worst, % \
| worst error of change, % |
|---|---|---:|---:|---:|---:|---:|---:|"""


def volume_errors(pair: NodulePair, nodule: PhantomNodule, side: str, seed: int) -> list[float]:
    """Error of the volume for every click, %; NaN where no nodule was found."""
    rng = np.random.default_rng([seed, nodule.number])
    true, errors = getattr(nodule, f"{side}_volume_mm3"), []
    volume = getattr(pair, side)
    for away in CLICKS:
        beside = rng.normal(size=3)
        click = getattr(nodule, f"{side}_center") + away * beside / np.linalg.norm(beside)
        try:
            found = measure(volume, segment_nodule(volume, click)).volume_mm3
            errors.append(100 * (found / true - 1))
        except InputError:
            errors.append(float("nan"))
    return errors


def collect(seeds: list[int], spacing: float, noise: float) -> tuple[dict, dict]:
    """Volume errors and change errors (%), by kind and size class."""
    volumes, changes = defaultdict(list), defaultdict(list)
    for seed in seeds:
        pair = make_nodule_phantom(seed, spacing=spacing, noise=noise)
        for nodule in pair.nodules:
            found = {}
            for side in ("fixed", "moving"):
                if getattr(nodule, f"{side}_center") is not None:
                    found[side] = volume_errors(pair, nodule, side, seed)
                    volumes[_row(nodule, nodule.diameter_mm(side))] += found[side]
            if len(found) == 2:
                after, before = (1 + found[side][0] / 100 for side in ("fixed", "moving"))
                row = _row(nodule, nodule.diameter_mm("moving"))
                changes[row].append(100 * (after / before - 1))
    return volumes, changes


def _row(nodule: PhantomNodule, diameter: float) -> tuple[str, int]:
    return nodule.kind, next(k for k, (low, high) in enumerate(CLASSES) if low <= diameter < high)


def table(volumes: dict, changes: dict) -> str:
    """A Markdown table with one row for each kind and size."""
    lines = [HEADER]
    for kind, size in sorted(volumes):
        errors = np.array(volumes[kind, size])
        good = errors[np.isfinite(errors)]
        low, high = CLASSES[size]
        change = np.abs(changes[kind, size])
        lines.append(
            f"| {kind} | {low:.0f} to {high:.0f} | {len(errors)} | {len(errors) - len(good)} "
            f"| {good.mean():+.1f} | {np.abs(good).mean():.1f} | {np.abs(good).max():.1f} "
            f"| {np.nanmax(change) if len(change) else float('nan'):.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--spacing", type=float, default=1.5, help="of both scans, mm")
    parser.add_argument("--noise", type=float, default=18.0, help="HU")
    chosen = parser.parse_args()
    print("# Volume of a nodule by one click\n")
    print(
        f"Analytic nodule phantoms, seeds {', '.join(map(str, chosen.seeds))}; voxels of "
        f"{chosen.spacing} mm, noise {chosen.noise:.0f} HU; clicks at the center and "
        f"{', '.join(map(str, CLICKS[1:]))} mm beside it. Command: "
        "`python -m benchmarks.nodule_volumes`.\n"
    )
    print(table(*collect(chosen.seeds, chosen.spacing, chosen.noise)))


if __name__ == "__main__":
    main()
