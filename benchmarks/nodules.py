"""Follows the nodules of the follow-up phantom and prints how near, how right, how measured.

``python -m benchmarks.nodules [--seed N ...] [--preset fast ...] [--no-refine]``; local features.
Truth is exact: see ``GlideRegLib/sample_data/nodule_phantom.py``.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from GlideRegLib.pipeline import register
from GlideRegLib.sample_data.nodule_phantom import NodulePair, make_nodule_phantom
from GlideRegLib.settings import Settings, with_changes
from GlideRegLib.tracking.evaluation import position_quality, state_quality
from GlideRegLib.tracking.nodules import Nodule
from GlideRegLib.tracking.records import Tracking
from GlideRegLib.tracking.track import MeasureSettings, RefineSettings, TrackSettings, track

_HEAD = (
    "seed  preset    nodules  states right  position      mean   max   "
    "<=0.5  <=1   <=2   <=5    volume change: mean, worst error %  seconds"
)
#: Volumes are judged from this diameter on, mm (the planned 6 mm, drawn on a lattice).
_MEASURED_MM = 5.99


def main() -> None:
    """Prints two rows for each pair: the field alone, and after the local refinement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--preset", nargs="+", default=["fast", "standard"])
    parser.add_argument("--no-refine", dest="refine", action="store_false")
    chosen = parser.parse_args()
    print(_HEAD)
    for seed in chosen.seed:
        pair = make_nodule_phantom(seed=seed)
        for preset in chosen.preset:
            for line in _rows(pair, preset, chosen.refine):
                print(f"{seed:4d}  {preset:8s}  {line}", flush=True)


def _rows(pair: NodulePair, preset: str, refine: bool) -> list[str]:
    settings = with_changes(Settings.preset(preset), features={"encoder": "none"}, threads=1)
    result = register(pair.fixed, pair.moving, settings)
    started = time.monotonic()
    found = _track(result, pair, refine)
    seconds = time.monotonic() - started
    truth = {row.identifier: pair.nodules[int(row.name[1:]) - 1] for row in found}
    places = {k: n.fixed_center for k, n in truth.items() if n.state == "matched"}
    quality = position_quality(found, places)
    states = state_quality(found, {k: n.state for k, n in truth.items()})
    errors = _volume_errors(found, truth)
    rows = []
    for key in ("field", "predicted"):
        tre, cpm = quality["tre_mm"][key], quality["cpm_percent"][key]
        shares = "  ".join(f"{cpm[t]:4.0f}" for t in ("0.5", "1", "2", "5"))
        rows.append(
            f"{len(found):7d}  {states['right']:3d} of {states['n']:3d}    {key:10s}  "
            f"{tre['mean']:6.2f}  {tre['max']:4.2f}   {shares}    "
            f"{errors.mean():6.1f}  {errors.max():6.1f} (n = {len(errors)})      {seconds:8.1f}"
        )
    return rows


def _track(result: object, pair: NodulePair, refine: bool) -> Tracking:
    sides = []
    for side in ("moving", "fixed"):
        places = [(n.number, getattr(n, f"{side}_center")) for n in pair.nodules]
        sides.append([Nodule(f"N{k}", center) for k, center in places if center is not None])
    settings = TrackSettings(
        refine=RefineSettings(enabled=refine), measure=MeasureSettings(segment=True)
    )
    return track(result, pair.fixed, pair.moving, *sides, settings)


def _volume_errors(found: Tracking, truth: dict) -> np.ndarray:
    """Errors of current over prior volume in percent of its truth, nodules of 6 mm or more."""
    errors = []
    for row in found:
        nodule = truth[row.identifier]
        if row.growth is not None and nodule.diameter_mm("moving") >= _MEASURED_MM:
            ratio = 1 + row.growth.volume_change_percent / 100
            errors.append(100 * abs(ratio / nodule.factor - 1))
    return np.array(errors)


if __name__ == "__main__":
    main()
