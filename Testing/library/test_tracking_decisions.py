"""Decisions of a clinician about tracked nodules, and how they outlive the next run."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from nodule_scene import SHIFT, Translation, at, prior_nodule, scene

from GlideRegLib.errors import InputError
from GlideRegLib.tracking.decisions import (
    added,
    carried_over,
    confirmed,
    corrected,
    measure_settings,
    rejected,
)
from GlideRegLib.tracking.files import tracking_csv, tracking_json
from GlideRegLib.tracking.nodules import Nodule, nodules_from_points, with_identities
from GlideRegLib.tracking.records import Tracking, TrackRow
from GlideRegLib.tracking.track import MeasureSettings, TrackSettings, track
from GlideRegLib.volume import Volume

STAYS, GROWS, GONE, FRESH = at(25, 28, 30), at(55, 30, 34), at(30, 55, 40), at(58, 58, 48)
MEASURE = MeasureSettings(segment=True, days=180)


@pytest.fixture(scope="module")
def current() -> Volume:
    return scene({STAYS: 4.0, GROWS: 5.0, FRESH: 3.5}, np.zeros(3))


@pytest.fixture(scope="module")
def prior() -> Volume:
    return scene({STAYS: 4.0, GROWS: 4.0, GONE: 4.0}, SHIFT)


def run(current: Volume, prior: Volume, currents: list[Nodule]) -> Tracking:
    """The prior's three nodules with fixed identities, tracked once."""
    named = {"stays": STAYS, "grows": GROWS, "gone": GONE}
    priors = [replace(prior_nodule(n, c), identifier=f"id-{n}") for n, c in named.items()]
    settings = TrackSettings(measure=MEASURE)
    return track(Translation(), current, prior, priors, currents, settings)


@pytest.fixture(scope="module")
def tracking(current: Volume, prior: Volume) -> Tracking:
    return run(current, prior, [Nodule("c1", STAYS, identifier="c1")])


def test_a_correction_is_measured_where_the_clinician_put_it(
    tracking: Tracking, current: Volume
) -> None:
    before = tracking.by_identifier("id-grows")
    assert before.state == "resolved" and before.fixed_measurement is None
    row = corrected(before, GROWS, current, MEASURE)
    assert (row.state, row.decision) == ("matched", "corrected")
    assert row.fixed_center == GROWS
    assert row.distance_mm < 0.5
    assert row.growth.volume_change_percent == pytest.approx(95.3, abs=8)
    assert before.decision == "open", "rows are never changed"
    assert confirmed(row, MEASURE) == row, "a corrected row stays corrected"


def test_a_new_nodule_that_is_moved_has_no_distance(tracking: Tracking, current: Volume) -> None:
    mine = added("mine", np.add(FRESH, 1.5), None, current, MEASURE)
    row = corrected(mine, FRESH, current, MEASURE)
    assert (row.state, row.decision, row.distance_mm) == ("new", "corrected", None)
    listed = replace(tracking, rows=(*tracking.rows, row))
    assert "inf" not in tracking_csv(listed).lower()
    assert Tracking.from_dict(json.loads(tracking_json(listed))) == listed


def test_a_place_outside_the_image_is_refused(tracking: Tracking, current: Volume) -> None:
    with pytest.raises(InputError, match="outside the current image"):
        corrected(tracking.rows[0], at(-20, 0, 0), current, MEASURE)
    with pytest.raises(InputError, match="outside the current image"):
        added("x", at(-20, 0, 0), None, current, MEASURE)


def test_confirming_an_ambiguous_match_gives_its_growth(current: Volume, prior: Volume) -> None:
    near = tuple(np.add(STAYS, (2.0, 0.0, 0.0)))
    row = run(current, prior, [Nodule("a", STAYS), Nodule("b", near)]).by_identifier("id-stays")
    assert row.state == "ambiguous" and row.growth is None
    decided = confirmed(row, MEASURE)
    assert decided.growth.volume_change_percent == pytest.approx(0, abs=6)
    assert not any("before the ambiguous" in remark for remark in decided.remarks)


def test_the_next_run_keeps_decisions_by_identity(
    tracking: Tracking, current: Volume, prior: Volume
) -> None:
    stays, grows, gone = (tracking.by_identifier(f"id-{n}") for n in ("stays", "grows", "gone"))
    decided = tracking.with_row(confirmed(stays, MEASURE))
    decided = decided.with_row(corrected(grows, GROWS, current, MEASURE))
    decided = decided.with_row(rejected(gone))
    mine = added("mine", FRESH, np.add(FRESH, SHIFT), current, MEASURE)
    decided = replace(decided, rows=(*decided.rows, mine))
    again = carried_over(run(current, prior, [Nodule("c1", STAYS, identifier="c1")]), decided)
    assert [row.decision for row in again] == ["confirmed", "corrected", "rejected", "confirmed"]
    assert again.by_identifier("id-grows").fixed_center == GROWS
    assert again.by_identifier("id-grows").growth == decided.by_identifier("id-grows").growth
    assert again.rows[-1] == mine


def test_a_confirmed_row_with_another_partner_is_open_again(
    tracking: Tracking, current: Volume, prior: Volume
) -> None:
    decided = tracking.with_row(confirmed(tracking.by_identifier("id-stays"), MEASURE))
    other = [Nodule("other", STAYS, identifier="other")]
    row = carried_over(run(current, prior, other), decided).by_identifier("id-stays")
    assert row.decision == "open"
    assert "another current nodule" in row.remarks[-1]


def test_an_added_nodule_that_is_marked_now_is_not_there_twice(
    tracking: Tracking, current: Volume, prior: Volume
) -> None:
    mine = added("mine", FRESH, None, current, MEASURE)
    decided = replace(tracking, rows=(*tracking.rows, mine))
    again = carried_over(run(current, prior, [Nodule("c2", FRESH)]), decided)
    assert [row.state for row in again].count("new") == 1


def test_a_row_that_was_added_knows_its_place_in_the_prior(current: Volume) -> None:
    row = added("mine", FRESH, np.add(FRESH, SHIFT), current, MEASURE)
    assert (row.state, row.decision, row.identifier) == ("new", "confirmed", row.fixed_identifier)
    assert row.moving_position == pytest.approx(np.add(FRESH, SHIFT))
    assert row.fixed_measurement.equivalent_diameter_mm == pytest.approx(7.0, rel=0.06)
    assert TrackRow.from_dict(row.to_dict()) == row


def test_the_settings_of_a_run_are_read_back(tracking: Tracking) -> None:
    assert measure_settings(Tracking.from_dict(tracking.to_dict())) == MEASURE
    assert measure_settings(Tracking(())) == MeasureSettings()


def test_known_nodules_keep_their_identity_one_to_one() -> None:
    nodules = nodules_from_points(np.array([[0.0, 0, 0], [2.0, 0, 0], [50.0, 0, 0]]))
    known = [("b", (2.2, 0.0, 0.0)), ("a", (0.9, 0.0, 0.0)), ("far", (60.0, 0.0, 0.0))]
    found = with_identities(nodules, known)
    assert [n.identifier for n in found[:2]] == ["a", "b"]
    assert found[2].identifier == nodules[2].identifier
    assert with_identities(nodules, []) == nodules
