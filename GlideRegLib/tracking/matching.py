"""Which marked nodule of the current scan is which predicted one: gated one-to-one assignment.

Registration proposes, a person decides: what is near and the only candidate is *matched*, all
else that could be meant is shown as *review* or *ambiguous*.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import SettingsError
from .records import State


@dataclass(frozen=True)
class Gates:
    """Distances in mm between a predicted and a marked center.

    Up to ``matched_mm`` a unique pair is *matched*, up to ``review_mm`` it is *review*; beyond
    that two nodules are never paired. A second candidate within ``ambiguous_mm`` makes a nodule
    *ambiguous*. Where the expected error of the field is above ``uncertain_mm``, nothing is called
    matched, new or resolved. What is missing within ``border_mm`` of the edge of the image counts
    as outside of it.
    """

    matched_mm: float = 2.0
    review_mm: float = 5.0
    ambiguous_mm: float = 5.0
    uncertain_mm: float = 3.0
    border_mm: float = 2.0

    def check(self) -> None:
        """Raises :class:`SettingsError` when the distances contradict each other."""
        values = (self.matched_mm, self.review_mm, self.ambiguous_mm, self.uncertain_mm)
        if not all(np.isfinite(v) and v > 0 for v in values) or not 0 <= self.border_mm < 1e3:
            raise SettingsError("The gates of nodule matching must be positive distances in mm.")
        if self.matched_mm > self.review_mm or self.ambiguous_mm > self.review_mm:
            raise SettingsError(
                f"The gates 'matched' ({self.matched_mm:g} mm) and 'ambiguous' "
                f"({self.ambiguous_mm:g} mm) must not be beyond 'review' ({self.review_mm:g} mm)."
            )


@dataclass(frozen=True)
class Matching:
    """``pairs`` (K, 2): rows of the predicted and of the marked points. ``distances`` (N, M) mm.
    ``candidates`` (N,) and ``rivals`` (M,): how many of the others lie within the ambiguity gate
    (of the review gate for those that are not paired)."""

    pairs: np.ndarray
    distances: np.ndarray
    candidates: np.ndarray
    rivals: np.ndarray

    def partner(self, predicted: int) -> int | None:
        """The marked point that belongs to a predicted one, if any."""
        found = self.pairs[self.pairs[:, 0] == predicted, 1]
        return int(found[0]) if len(found) else None


def match(predicted: np.ndarray, marked: np.ndarray, gates: Gates) -> Matching:
    """One-to-one assignment of predicted (N, 3) to marked (M, 3) points, LPS mm.

    Pairs within the review gate are chosen such that the sum of (gate^2 - distance^2) is largest
    (``scipy.optimize.linear_sum_assignment``). Every point may also stay alone, at the cost of
    gate^2 / 2: so a pair beyond the gate never forms, and a far one never forces a near pair
    apart; where all are shifted alike, the common shift wins over one perfect and one wide pair.
    """
    from scipy.optimize import linear_sum_assignment

    predicted = np.asarray(predicted, dtype=float).reshape(-1, 3)
    marked = np.asarray(marked, dtype=float).reshape(-1, 3)
    n, m = len(predicted), len(marked)
    distances = np.linalg.norm(predicted[:, None] - marked[None], axis=2)
    alone = gates.review_mm**2 / 2 * (1 + 1e-9)  # a pair just at the gate still forms
    never = (n + m + 1) * (2 * alone + 1)
    cost = np.full((n + m, n + m), never)
    cost[:n, :m] = np.where(distances <= gates.review_mm, distances**2, never)
    cost[np.arange(n), m + np.arange(n)] = alone
    cost[n + np.arange(m), np.arange(m)] = alone
    cost[n:, m:] = 0.0
    rows, columns = linear_sum_assignment(cost)
    real = (rows < n) & (columns < m)
    pairs = np.stack((rows[real], columns[real]), axis=1)
    pairs = pairs[distances[pairs[:, 0], pairs[:, 1]] <= gates.review_mm]
    near = distances <= gates.ambiguous_mm
    return Matching(pairs, distances, near.sum(axis=1), near.sum(axis=0))


def pair_state(
    matching: Matching, predicted: int, marked: int, uncertain: bool, gates: Gates
) -> State:
    """The state of a pair: ambiguous, review or matched."""
    if matching.candidates[predicted] > 1 or matching.rivals[marked] > 1:
        return "ambiguous"
    distance = matching.distances[predicted, marked]
    return "matched" if distance <= gates.matched_mm and not uncertain else "review"


def lone_state(others: int, outside: bool, uncertain: bool, state: State) -> State:
    """The state of a nodule without partner, ``state`` (new or resolved) if nothing speaks against.

    ``others``: candidates within the gate, taken by a better pair; ``outside``: the other image
    does not show the place; ``uncertain``: the field is not to be trusted there.
    """
    if others:
        return "ambiguous"
    if outside:
        return "outside field of view"
    return "review" if uncertain else state
