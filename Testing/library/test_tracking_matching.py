"""Gated assignment: what is paired, what stays alone, and which state each gets."""

from __future__ import annotations

import numpy as np
import pytest

from GlideRegLib.errors import SettingsError
from GlideRegLib.tracking.matching import Gates, lone_state, match, pair_state

GATES = Gates()


def on_line(*places: float) -> np.ndarray:
    return np.array([[place, 0.0, 0.0] for place in places]).reshape(-1, 3)


def pairs(predicted: np.ndarray, marked: np.ndarray) -> set[tuple[int, int]]:
    return {(int(i), int(j)) for i, j in match(predicted, marked, GATES).pairs}


def test_near_ones_are_paired_whatever_their_order() -> None:
    assert pairs(on_line(0, 50, 100), on_line(101, 1, 49)) == {(0, 1), (1, 2), (2, 0)}


def test_nothing_is_paired_beyond_the_gate() -> None:
    assert pairs(on_line(0, 20), on_line(5.01, 20)) == {(1, 1)}
    assert pairs(on_line(0), on_line(5.0)) == {(0, 0)}


def test_a_far_pair_does_not_force_a_near_one_apart() -> None:
    # Pairing both would need 3.1 and 4.9 mm; the pair of 0.1 mm is clearly meant.
    assert pairs(on_line(0, 3), on_line(3.1, 7.9)) == {(1, 0)}


def test_a_common_shift_wins_over_one_perfect_pair() -> None:
    assert pairs(on_line(0, 2), on_line(2, 4)) == {(0, 0), (1, 1)}


def test_every_pair_is_one_to_one_and_the_best_of_all_assignments() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        predicted, marked = rng.uniform(0, 12, (4, 3)), rng.uniform(0, 12, (3, 3))
        matching = match(predicted, marked, GATES)
        assert len(set(matching.pairs[:, 0])) == len(set(matching.pairs[:, 1]))
        gains = np.maximum(GATES.review_mm**2 - matching.distances**2, 0)
        best = max(
            sum(gains[i, j] for j, i in enumerate(order))
            for order in np.array(np.meshgrid(*[range(4)] * 3)).reshape(3, -1).T
            if len(set(order)) == 3
        )
        found = sum(gains[i, j] for i, j in matching.pairs)
        assert found == pytest.approx(best)


@pytest.mark.parametrize(("n", "m"), [(0, 0), (3, 0), (0, 3)])
def test_empty_sides_pair_nothing(n: int, m: int) -> None:
    matching = match(np.zeros((n, 3)), np.zeros((m, 3)), GATES)
    assert len(matching.pairs) == 0
    assert (matching.candidates.shape, matching.rivals.shape) == ((n,), (m,))


@pytest.mark.parametrize(
    ("marked", "uncertain", "state"),
    [
        ((1.9,), False, "matched"),
        ((2.1,), False, "review"),
        ((0.5,), True, "review"),
        ((0.5, 4.5), False, "ambiguous"),
        ((0.5, 5.5), False, "matched"),
    ],
)
def test_the_state_of_a_pair(marked: tuple, uncertain: bool, state: str) -> None:
    matching = match(on_line(0), on_line(*marked), GATES)
    assert pair_state(matching, 0, matching.partner(0), uncertain, GATES) == state


def test_two_priors_that_could_be_one_nodule_are_ambiguous() -> None:
    matching = match(on_line(0, 4), on_line(0.5), GATES)
    assert pair_state(matching, 0, 0, False, GATES) == "ambiguous"
    assert matching.partner(1) is None
    assert lone_state(int(matching.candidates[1]), False, False, "resolved") == "ambiguous"


def test_what_stays_alone_is_only_new_or_resolved_when_nothing_speaks_against() -> None:
    assert lone_state(0, False, False, "new") == "new"
    assert lone_state(0, True, False, "resolved") == "outside field of view"
    assert lone_state(0, False, True, "resolved") == "review"


@pytest.mark.parametrize(
    "gates",
    [
        Gates(matched_mm=0),
        Gates(matched_mm=6),
        Gates(ambiguous_mm=8),
        Gates(border_mm=-1),
        Gates(review_mm=float("nan")),
    ],
)
def test_gates_that_contradict_each_other_are_refused(gates: Gates) -> None:
    with pytest.raises(SettingsError, match="gates"):
        gates.check()
