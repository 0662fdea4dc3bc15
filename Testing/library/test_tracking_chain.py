"""Several time points: one identity along the chain, also where a nodule was not marked."""

from __future__ import annotations

import numpy as np
import pytest
from nodule_scene import SHIFT, Translation, at, scene

from GlideRegLib.errors import InputError
from GlideRegLib.tracking.chain import Chain, TimePoint, track_chain
from GlideRegLib.tracking.nodules import Nodule, Point
from GlideRegLib.tracking.track import MeasureSettings, TrackSettings

#: Places in the last scan. In the scan before all lies SHIFT away, in the first one twice that.
STAYS, PAUSES, LATE = at(28, 34, 26), at(50, 44, 30), at(32, 60, 40)


def moved(place: Point, times: int) -> Point:
    return tuple(float(v) for v in np.asarray(place) + times * SHIFT)


def chain_of(middle: list[Nodule] | None, expected_mm: float | None = None) -> Chain:
    """Day 0, 100, 300: STAYS grows, PAUSES may be unmarked in between, LATE comes last."""
    volumes = [
        scene({STAYS: 3.5, PAUSES: 3.5}, 2 * SHIFT),
        scene({STAYS: 4.0, PAUSES: 3.5}, SHIFT),
        scene({STAYS: 4.5, PAUSES: 3.5, LATE: 3.5}, np.zeros(3)),
    ]
    first = [Nodule("stays", moved(STAYS, 2)), Nodule("pauses", moved(PAUSES, 2))]
    last = [Nodule("x", PAUSES), Nodule("y", STAYS), Nodule("z", LATE)]
    points = [
        TimePoint(volume, nodules, day)
        for volume, nodules, day in zip(
            volumes, (first, middle, last), (0.0, 100.0, 300.0), strict=True
        )
    ]
    mapping = Translation((0.4, 0.3, -0.3), expected_mm)
    settings = TrackSettings(measure=MeasureSettings(segment=True))
    return track_chain(points, [mapping, mapping], settings)


def by_name(chain: Chain) -> dict[str, tuple]:
    return {chain.names[key]: entries for key, entries in chain.tracks.items()}


def test_identity_is_kept_through_a_time_point_where_a_nodule_was_not_marked() -> None:
    tracks = by_name(chain_of([Nodule("m", moved(STAYS, 1))]))
    assert set(tracks) == {"stays", "pauses", "z"}
    assert [e.state for e in tracks["stays"]] == [None, "matched", "matched"]
    assert [e.state for e in tracks["pauses"]] == [None, "resolved", "matched"]
    assert [e.marked for e in tracks["pauses"]] == [True, False, True]
    assert np.allclose(tracks["pauses"][2].position, PAUSES)
    assert [e.state for e in tracks["z"]] == [None, None, "new"]
    assert tracks["z"][0].position is None


def test_a_scan_that_was_not_read_is_passed_by_prediction() -> None:
    chain = chain_of(None)
    tracks = by_name(chain)
    assert [e.state for e in tracks["stays"]] == [None, "predicted", "matched"]
    assert [e.state for e in tracks["pauses"]] == [None, "predicted", "matched"]
    place = tracks["stays"][1].position
    assert np.linalg.norm(np.subtract(place, moved(STAYS, 1))) < 0.25
    growth = [step.rows[0].growth for step in chain.steps]
    assert [g.days for g in growth] == [100.0, 200.0]
    assert growth[1].volume_change_percent == pytest.approx(100 * (4.5**3 / 4**3 - 1), abs=8)


def test_uncertainty_grows_where_nobody_marked_the_nodule() -> None:
    chain = chain_of([Nodule("m", moved(STAYS, 1))], expected_mm=1.0)
    second = {row.name: row.uncertainty_mm for row in chain.steps[1]}
    assert second["stays"] == pytest.approx(1.0)
    assert second["pauses"] == pytest.approx(np.sqrt(2))


def test_a_chain_needs_a_transform_between_neighbors() -> None:
    point = TimePoint(scene({STAYS: 3.0}, np.zeros(3)))
    with pytest.raises(InputError, match="2 time points needs 1 transforms"):
        track_chain([point, point], [])
