"""Decisions of a clinician about tracked nodules, and how they outlive the next run."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from nodule_run import (
    FRESH,
    GROWS,
    MEASURE,
    STAYS,
    beside,
    brief,
    current,
    marked,
    run,
)
from nodule_scene import SHIFT, at

from GlideRegLib.errors import InputError
from GlideRegLib.tracking import decisions
from GlideRegLib.tracking.decisions import (
    added,
    confirmed,
    corrected,
    measure_settings,
    rejected,
)
from GlideRegLib.tracking.files import tracking_csv, tracking_json
from GlideRegLib.tracking.nodules import Nodule, nodules_from_points, with_identities
from GlideRegLib.tracking.records import Tracking, TrackRow
from GlideRegLib.tracking.track import MeasureSettings


@pytest.fixture(scope="module")
def tracking() -> Tracking:
    return run(marked(c1=STAYS))


@pytest.fixture(scope="module")
def full() -> Tracking:
    """All current nodules are marked: two pairs, one resolved, one new."""
    return run(marked(c1=STAYS, c2=GROWS, c3=FRESH))


# --- one row --------------------------------------------------------------------------------------


def test_a_correction_is_measured_where_the_clinician_put_it(
    tracking: Tracking,
) -> None:
    before = tracking.by_identifier("id-grows")
    assert before.state == "resolved" and before.fixed_measurement is None
    row = corrected(before, GROWS, current(), MEASURE)
    assert (row.state, row.decision) == ("matched", "corrected")
    assert row.fixed_center == GROWS
    assert row.distance_mm < 0.5
    assert row.growth.volume_change_percent == pytest.approx(95.3, abs=8)
    assert before.decision == "open", "rows are never changed"
    assert confirmed(row, MEASURE) == row, "a corrected row stays corrected"


def test_a_new_nodule_that_is_moved_has_no_distance(tracking: Tracking) -> None:
    mine = added("mine", np.add(FRESH, 1.5), None, current(), MEASURE)
    row = corrected(mine, FRESH, current(), MEASURE)
    assert (row.state, row.decision, row.distance_mm) == ("new", "corrected", None)
    listed = replace(tracking, rows=(*tracking.rows, row))
    assert "inf" not in tracking_csv(listed).lower()
    assert Tracking.from_dict(json.loads(tracking_json(listed))) == listed


def test_a_place_outside_the_image_is_refused(tracking: Tracking) -> None:
    with pytest.raises(InputError, match="outside the current image"):
        corrected(tracking.rows[0], at(-20, 0, 0), current(), MEASURE)
    with pytest.raises(InputError, match="outside the current image"):
        added("x", at(-20, 0, 0), None, current(), MEASURE)


def test_confirming_an_ambiguous_match_gives_its_growth() -> None:
    row = run([Nodule("a", STAYS), Nodule("b", beside(STAYS, 2.0))]).by_identifier("id-stays")
    assert row.state == "ambiguous" and row.growth is None
    decided = confirmed(row, MEASURE)
    assert decided.growth.volume_change_percent == pytest.approx(0, abs=6)
    assert not any("before the ambiguous" in remark for remark in decided.remarks)


def test_a_row_that_was_added_knows_its_place_in_the_prior() -> None:
    row = added("mine", FRESH, np.add(FRESH, SHIFT), current(), MEASURE)
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


def test_a_rejection_that_is_taken_back_gives_the_row_as_it_was(tracking: Tracking) -> None:
    grows = corrected(tracking.by_identifier("id-grows"), GROWS, current(), MEASURE)
    twice = rejected(rejected(grows))
    assert (twice.decision, twice.fixed_center) == ("rejected", GROWS)
    listed = tracking.with_row(twice)
    assert decisions.reopen(listed, tracking, "id-grows").by_identifier("id-grows") == grows
    assert confirmed(twice, MEASURE) == grows, "corrected says more than confirmed"
    assert decisions.reopen(tracking.with_row(grows), tracking, "id-grows") == tracking


# --- the whole list: one to one -------------------------------------------------------------------


def test_a_correction_onto_a_marked_nodule_takes_it(full: Tracking) -> None:
    settings_before = full.by_identifier("c3").fixed_measurement
    done = decisions.correct(full, "id-stays", beside(FRESH, 1.0), current())
    assert brief(done) == {
        "id-stays": ("matched", "corrected", "c3"),
        "id-grows": ("matched", "open", "c2"),
        "id-gone": ("resolved", "open", None),
        "c1": ("new", "open", "c1"),
    }
    row = done.by_identifier("id-stays")
    assert (row.fixed_center, row.fixed_measurement) == (FRESH, settings_before)
    assert row.growth.volume_change_percent == pytest.approx(-33, abs=6)
    assert row.fixed_mask is full.by_identifier("c3").fixed_mask is not None
    left = done.by_identifier("c1")
    assert left.fixed_mask is full.by_identifier("id-stays").fixed_mask is not None
    assert left.fixed_center == STAYS
    assert left.fixed_measurement == full.by_identifier("id-stays").fixed_measurement
    assert decisions.reopen(done, full, "id-stays") == full


def test_a_correction_to_a_free_place_leaves_its_partner_as_a_new_nodule(full: Tracking) -> None:
    done = decisions.correct(full, "id-stays", at(40, 40, 20), current())
    row = done.by_identifier("id-stays")
    assert (row.fixed_identifier, row.fixed_center) == ("id-stays", at(40, 40, 20))
    assert brief(done)["c1"] == ("new", "open", "c1")
    # Within its own nodule, it is that nodule still.
    near = decisions.correct(full, "id-stays", beside(STAYS, 2.0), current())
    assert brief(near)["id-stays"] == ("matched", "corrected", "c1")
    assert len(near) == len(full)


def test_an_ambiguous_row_can_be_decided_for_the_second_candidate() -> None:
    both = run(marked(a=STAYS, b=beside(STAYS, 4.0)))
    assert both.by_identifier("id-stays").state == "ambiguous"
    done = decisions.correct(both, "id-stays", beside(STAYS, 4.0), current())
    assert brief(done)["id-stays"] == ("matched", "corrected", "b")
    assert brief(done)["a"] == ("new", "open", "a")
    assert "b" not in brief(done)


def test_a_nodule_is_taken_from_an_open_pair_and_not_from_a_decided_one(full: Tracking) -> None:
    done = decisions.correct(full, "id-gone", GROWS, current())
    assert brief(done)["id-gone"] == ("matched", "corrected", "c2")
    assert brief(done)["id-grows"] == ("review", "open", None)
    assert "given to 'gone'" in done.by_identifier("id-grows").remarks[-1]
    decided = decisions.confirm(full, "id-grows")
    with pytest.raises(InputError, match="confirmed as 'grows'"):
        decisions.correct(decided, "id-gone", GROWS, current())
    with pytest.raises(InputError, match="has a row already, 'grows'"):
        decisions.correct(full, "c3", GROWS, current())


def test_a_pair_is_taken_apart_into_resolved_and_new(full: Tracking) -> None:
    done = decisions.separate(full, "id-grows")
    assert brief(done) == {
        "id-stays": ("matched", "open", "c1"),
        "id-grows": ("resolved", "corrected", None),
        "id-gone": ("resolved", "open", None),
        "c3": ("new", "open", "c3"),
        "c2": ("new", "confirmed", "c2"),
    }
    row, new = done.by_identifier("id-grows"), done.by_identifier("c2")
    assert (row.fixed_center, row.fixed_measurement, row.growth) == (None, None, None)
    assert new.fixed_measurement == full.by_identifier("id-grows").fixed_measurement
    assert decisions.reopen(done, full, "id-grows") == full
    with pytest.raises(InputError, match="Only a row with"):
        decisions.separate(full, "id-gone")
    # Also where a person had put the nodule: its place is not lost.
    free = decisions.correct(full, "id-gone", at(40, 40, 20), current())
    apart = decisions.separate(free, "id-gone")
    assert brief(apart)["id-gone"] == ("resolved", "corrected", None)
    assert (apart.rows[-1].state, apart.rows[-1].fixed_center) == ("new", at(40, 40, 20))


def test_the_nodule_of_a_rejected_pair_is_added_once_as_it_was_marked(full: Tracking) -> None:
    refused = decisions.reject(full, "id-stays")
    done, new = decisions.add(refused, "stays (new)", STAYS, None, current())
    assert brief(done)[new] == ("new", "confirmed", "c1")
    again, same = decisions.add(done, "stays (new)", STAYS, None, current())
    assert (again, same) == (done, new)
    with pytest.raises(InputError, match="belongs to 'stays \\(new\\)' now"):
        decisions.reopen(done, full, "id-stays")
    with pytest.raises(InputError, match="reject that row first"):
        decisions.confirm(done, "id-stays")
    beside_it, third = decisions.add(full, "twice", GROWS, None, current())
    assert "nodule of 'grows'" in beside_it.by_identifier(third).remarks[-1]


def test_a_row_that_was_added_stays_when_its_decision_is_taken_back(full: Tracking) -> None:
    done, new = decisions.add(full, "mine", at(40, 40, 20), None, current())
    opened = decisions.reopen(done, full, new)
    assert brief(opened)[new] == ("new", "open", new)
    assert opened.by_identifier(new).by_hand
