"""Progress: fractions that rise to one at the end, stages that add up, and the way to stop."""

from __future__ import annotations

import pytest

from GlideRegLib.errors import Cancelled
from GlideRegLib.progress import Progress, ProgressEvent


def run(progress: Progress, *stages: str) -> None:
    for name in stages:
        with progress.stage(name):
            for step in (0.0, 0.5, 1.0):
                progress.update(step)


def test_the_fraction_of_the_run_follows_the_plan() -> None:
    events: list[ProgressEvent] = []
    run(Progress(events.append, plan={"a": 1.0, "b": 3.0}), "a", "b")
    found = [(e.stage, e.fraction) for e in events if e.kind == "progress"]
    assert found == [("a", 0), ("a", 0.125), ("a", 0.25), ("b", 0.25), ("b", 0.625), ("b", 1.0)]
    assert [e.stage for e in events if e.kind == "stage"] == ["a", "b"]


def test_a_stage_that_comes_back_counts_once() -> None:
    """The run is not finished before its last stage is."""
    events: list[ProgressEvent] = []
    run(Progress(events.append, plan={"a": 1.0, "b": 1.0, "c": 2.0}), "a", "b", "a", "c")
    fractions = [e.fraction for e in events]
    assert fractions == sorted(fractions)
    assert [e.fraction for e in events if e.stage == "c" and e.kind == "stage"] == [0.5]
    assert fractions.count(1.0) == 1


def test_a_stage_without_a_plan_counts_nothing() -> None:
    events: list[ProgressEvent] = []
    run(Progress(events.append, plan={"a": 1.0}), "unplanned", "a")
    assert {e.fraction for e in events if e.stage == "unplanned"} == {0.0}
    run(Progress(events.append), "a")
    assert events[-1].fraction == 0.0


def test_seconds_are_summed_by_stage() -> None:
    progress = Progress()
    run(progress, "a", "b", "a")
    assert set(progress.seconds) == {"a", "b"}
    assert all(value >= 0 for value in progress.seconds.values())


def test_messages_are_kept_and_handed_on() -> None:
    events: list[ProgressEvent] = []
    progress = Progress(events.append)
    progress.message("something odd", level="warning")
    assert progress.messages == [("warning", "something odd")]
    assert (events[0].kind, events[0].level, events[0].text) == (
        "message", "warning", "something odd",
    )  # fmt: skip


def test_a_wish_to_cancel_is_heard_at_every_call() -> None:
    progress = Progress(should_cancel=lambda: True)
    assert progress.cancel_wanted()
    for call in (progress.check, lambda: progress.update(0.5), lambda: run(progress, "a")):
        with pytest.raises(Cancelled, match="nothing was written"):
            call()


def test_a_stage_that_fails_is_closed() -> None:
    progress = Progress(plan={"a": 1.0})
    with pytest.raises(ValueError, match="broken"), progress.stage("a"):
        raise ValueError("broken")
    assert "a" in progress.seconds
