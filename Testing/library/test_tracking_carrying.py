"""Decisions of a clinician and the next run: each stays only while it is about the same thing."""

from __future__ import annotations

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

from GlideRegLib.tracking import decisions
from GlideRegLib.tracking.carrying import carried_over
from GlideRegLib.tracking.decisions import added, confirmed, corrected, rejected
from GlideRegLib.tracking.nodules import Nodule
from GlideRegLib.tracking.records import Tracking

ALL = {"c1": STAYS, "c2": GROWS, "c3": FRESH}


@pytest.fixture(scope="module")
def tracking() -> Tracking:
    return run(marked(c1=STAYS))


@pytest.fixture(scope="module")
def full() -> Tracking:
    """All current nodules are marked: two pairs, one resolved, one new."""
    return run(marked(**ALL))


@pytest.fixture(scope="module")
def predicted() -> Tracking:
    return run(None)


def test_the_next_run_keeps_decisions_by_identity(
    tracking: Tracking,
) -> None:
    stays, grows, gone = (tracking.by_identifier(f"id-{n}") for n in ("stays", "grows", "gone"))
    decided = tracking.with_row(confirmed(stays, MEASURE))
    decided = decided.with_row(corrected(grows, GROWS, current(), MEASURE))
    decided = decided.with_row(rejected(gone))
    mine = added("mine", FRESH, np.add(FRESH, SHIFT), current(), MEASURE)
    decided = replace(decided, rows=(*decided.rows, mine))
    again = carried_over(run([Nodule("c1", STAYS, identifier="c1")]), decided)
    assert [row.decision for row in again] == ["confirmed", "corrected", "rejected", "confirmed"]
    assert again.by_identifier("id-grows").fixed_center == GROWS
    assert again.by_identifier("id-grows").growth == decided.by_identifier("id-grows").growth
    assert again.rows[-1] == mine


def test_a_confirmed_row_with_another_partner_is_open_again(
    tracking: Tracking,
) -> None:
    decided = tracking.with_row(confirmed(tracking.by_identifier("id-stays"), MEASURE))
    other = [Nodule("other", STAYS, identifier="other")]
    row = carried_over(run(other), decided).by_identifier("id-stays")
    assert row.decision == "open"
    assert "another current nodule" in row.remarks[-1]


def test_an_added_nodule_that_is_marked_now_is_not_there_twice(
    tracking: Tracking,
) -> None:
    mine = added("mine", FRESH, None, current(), MEASURE)
    decided = replace(tracking, rows=(*tracking.rows, mine))
    again = carried_over(run([Nodule("c2", FRESH)]), decided)
    assert [row.state for row in again].count("new") == 1


def test_the_same_run_again_changes_nothing_that_was_decided(full: Tracking) -> None:
    """All kinds of decision, one after the other: set again on the proposal they are the same."""
    steps = (
        lambda t: decisions.confirm(t, "id-grows"),
        lambda t: decisions.correct(t, "id-stays", FRESH, current()),
        lambda t: decisions.correct(t, "id-gone", beside(STAYS, 0.5), current()),
        lambda t: decisions.add(t, "mine", at(40, 40, 20), None, current())[0],
        lambda t: decisions.reject(t, "id-stays"),
        lambda t: decisions.add(t, "fresh (new)", FRESH, None, current())[0],
        lambda t: decisions.separate(t, "id-grows"),
        lambda t: decisions.reject(t, "id-gone"),
    )
    done = full
    for step in steps:
        done = step(done)
        again = carried_over(full, done)
        assert {r.identifier: r for r in again} == {r.identifier: r for r in done}


def test_a_nodule_of_a_rejected_pair_that_was_added_stays(full: Tracking) -> None:
    refused = decisions.reject(full, "id-stays")
    done, new = decisions.add(refused, "stays (new)", STAYS, None, current())
    again = carried_over(run(marked(**ALL)), done)
    assert brief(again)["id-stays"] == ("matched", "rejected", "c1")
    assert brief(again)[new] == ("new", "confirmed", "c1")
    # Now the pair is proposed with a second look at the prior: both are there, and it is said.
    moved = {"stays": beside(STAYS, 4.0)}
    other = carried_over(run(marked(**ALL), moved), done)
    assert brief(other)["id-stays"][1] == "open"
    assert "current nodule of 'stays'" in other.by_identifier(new).remarks[-1]


@pytest.mark.parametrize("decide", [confirmed, lambda row, settings: rejected(row)])
def test_a_prediction_that_was_decided_is_no_decision_on_resolved(
    predicted: Tracking, decide
) -> None:
    gone = decide(predicted.by_identifier("id-gone"), MEASURE)
    said = f"Before this run it was {gone.decision} as 'predicted': look again."
    row = carried_over(run([]), predicted.with_row(gone)).by_identifier("id-gone")
    assert (row.state, row.decision, row.remarks[-1:]) == ("resolved", "open", (said,))
    back = run([])
    back = back.with_row(decide(back.by_identifier("id-gone"), MEASURE))
    row = carried_over(predicted, back).by_identifier("id-gone")
    assert (row.state, row.decision) == ("predicted", "open")
    assert row.remarks[-1] == said.replace("predicted", "resolved")


def test_a_prediction_that_was_confirmed_is_matched_now(predicted: Tracking) -> None:
    before = predicted.with_row(confirmed(predicted.by_identifier("id-stays"), MEASURE))
    row = carried_over(run(marked(c1=STAYS)), before).by_identifier("id-stays")
    assert (row.state, row.decision) == ("matched", "open")
    assert row.remarks[-1] == "Before this run it was confirmed as 'predicted': look again."


def test_a_rejected_pair_with_another_partner_is_open(full: Tracking) -> None:
    wrong = run(marked(wrong=beside(STAYS, 4.0)))
    before = wrong.with_row(rejected(wrong.by_identifier("id-stays")))
    row = carried_over(run(marked(right=STAYS)), before).by_identifier("id-stays")
    assert (row.state, row.decision, row.fixed_identifier) == ("matched", "open", "right")
    assert "rejected with another current nodule" in row.remarks[-1]


def test_a_point_that_was_moved_onto_another_nodule_is_not_decided() -> None:
    """Points keep their identity wherever they are moved."""
    done = run(marked(c1=STAYS))
    done = done.with_row(confirmed(done.by_identifier("id-stays"), MEASURE))
    row = carried_over(run(marked(c1=beside(STAYS, 4.5))), done).by_identifier("id-stays")
    assert (row.fixed_identifier, row.decision) == ("c1", "open")
    assert "another current nodule" in row.remarks[-1]


def test_a_prior_point_that_marks_another_nodule_now_is_not_decided() -> None:
    before = run([], {"a": GROWS})
    before = before.with_row(corrected(before.rows[0], GROWS, current(), MEASURE))
    row = carried_over(run(marked(s=STAYS), {"a": STAYS}), before).by_identifier("id-a")
    assert (row.state, row.decision, row.fixed_identifier) == ("matched", "open", "s")
    assert row.growth.volume_change_percent == pytest.approx(0, abs=6)
    x, y, z = GROWS
    assert f"corrected to LPS ({x:.1f}, {y:.1f}, {z:.1f}) mm" in row.remarks[-1]
    assert "its place in the prior is another one now" in row.remarks[-1]


def test_a_second_candidate_opens_a_confirmed_pair_and_a_wider_pair_does_not(
    tracking: Tracking,
) -> None:
    decided = tracking.with_row(confirmed(tracking.by_identifier("id-stays"), MEASURE))
    rivals = run(marked(c1=STAYS, rival=beside(STAYS, 3.5)))
    row = carried_over(rivals, decided).by_identifier("id-stays")
    assert (row.state, row.decision) == ("ambiguous", "open")
    wide = run(marked(c1=beside(STAYS, 2.6)))
    assert wide.by_identifier("id-stays").state == "review"
    row = carried_over(wide, decided).by_identifier("id-stays")
    assert (row.fixed_identifier, row.decision) == ("c1", "confirmed")


def test_a_correction_yields_to_a_nodule_that_nobody_had_seen(full: Tracking) -> None:
    done = decisions.correct(full, "id-gone", at(40, 40, 20), current())
    later = run([*marked(**ALL), Nodule("c9", beside(GROWS, 25.0), identifier="c9")])
    assert brief(later)["id-gone"] == ("resolved", "open", None)
    assert brief(carried_over(later, done))["id-gone"][1] == "corrected"
    there = run(marked(**ALL, c9=(40.0, 26.0, -160.0)))
    assert brief(there)["id-gone"][2] == "c9"
    row = carried_over(there, done).by_identifier("id-gone")
    assert (row.decision, row.fixed_identifier) == ("open", "c9")
    assert "with another current nodule" in row.remarks[-1]


def test_a_corrected_place_that_is_marked_now_is_that_nodule(tracking: Tracking) -> None:
    done = decisions.correct(tracking, "id-gone", FRESH, current())
    again = carried_over(run(marked(c1=STAYS, c3=beside(FRESH, 0.4))), done)
    assert brief(again)["id-gone"] == ("matched", "corrected", "c3")
    assert [row.fixed_identifier for row in again].count("c3") == 1


def test_an_added_nodule_that_is_marked_now_keeps_its_identity(tracking: Tracking) -> None:
    done, new = decisions.add(tracking, "mine", FRESH, None, current())
    again = carried_over(run(marked(c1=STAYS, c3=FRESH)), done)
    assert brief(again)[new] == ("new", "confirmed", "c3")
    assert "c3" not in brief(again)
    once_more = carried_over(run(marked(c1=STAYS, c3=FRESH)), again)
    assert brief(once_more) == brief(again)


def test_an_added_nodule_that_is_open_or_rejected_stays(tracking: Tracking) -> None:
    done, new = decisions.add(tracking, "mine", FRESH, None, current())
    for changed in (decisions.reopen(done, tracking, new), decisions.reject(done, new)):
        assert brief(carried_over(run(marked(c1=STAYS)), changed)) == brief(changed)


def test_a_nodule_that_was_confirmed_as_new_and_has_a_prior_now_is_asked_about(
    full: Tracking,
) -> None:
    few = run(marked(**ALL), {"stays": STAYS})
    done = decisions.confirm(few, "c2")
    again = carried_over(full, done)
    assert "c2" not in brief(again)
    assert brief(again)["id-grows"] == ("matched", "open", "c2")
    assert "confirmed as new" in again.by_identifier("id-grows").remarks[-1]
