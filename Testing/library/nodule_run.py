"""Three prior nodules with fixed identities, tracked against any current ones: for decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
from nodule_scene import SHIFT, Translation, at, prior_nodule, scene

from GlideRegLib.tracking.nodules import Nodule
from GlideRegLib.tracking.records import Tracking
from GlideRegLib.tracking.track import MeasureSettings, TrackSettings, track
from GlideRegLib.volume import Volume

#: Places in the current scan, LPS mm: in both scans, grown, in the prior alone, in the current.
STAYS, GROWS, GONE, FRESH = at(25, 28, 30), at(55, 30, 34), at(30, 55, 40), at(58, 58, 48)
PLACES = {"stays": STAYS, "grows": GROWS, "gone": GONE}
MEASURE = MeasureSettings(segment=True, days=180)


@cache
def current() -> Volume:
    return scene({STAYS: 4.0, GROWS: 5.0, FRESH: 3.5}, np.zeros(3))


@cache
def prior() -> Volume:
    return scene({STAYS: 4.0, GROWS: 4.0, GONE: 4.0}, SHIFT)


def run(currents: Sequence[Nodule] | None, places: dict[str, tuple] | None = None) -> Tracking:
    """The prior's nodules ("id-" and their name), tracked once."""
    named = places or PLACES
    priors = [replace(prior_nodule(n, c), identifier=f"id-{n}") for n, c in named.items()]
    settings = TrackSettings(measure=MEASURE)
    return track(Translation(), current(), prior(), priors, currents, settings)


def marked(**places: tuple[float, float, float]) -> list[Nodule]:
    """Current nodules with their names as identities."""
    return [Nodule(name, place, identifier=name) for name, place in places.items()]


def beside(place: tuple[float, float, float], mm: float) -> tuple[float, float, float]:
    """A place so many mm away along y."""
    x, y, z = place
    return x, y + mm, z


def brief(tracking: Tracking) -> dict[str, tuple]:
    """Of each row by its identity: state, decision and current nodule."""
    return {r.identifier: (r.state, r.decision, r.fixed_identifier) for r in tracking}
