"""How good tracking is, against a reference: CPM and TRE of the predicted positions, and states."""

from __future__ import annotations

from collections.abc import Mapping as Dictionary

import numpy as np

from ..errors import InputError
from ..quality import points_within, summarize_errors
from .nodules import Point
from .records import Tracking


def position_quality(tracking: Tracking, reference: Dictionary[str, Point]) -> dict:
    """Errors of the predicted positions against true ones in the fixed image.

    ``reference``: LPS mm by the identifier of the track. Returns ``tre_mm`` and ``cpm_percent``
    (percent of nodules within 0.5, 1, 2 and 5 mm) for the ``field`` alone and for the ``predicted``
    position after refinement, over all nodules of the reference that have a row. Raises
    :class:`InputError` when there is none.
    """
    rows = [row for row in tracking if row.identifier in reference and row.field_position]
    if not rows:
        raise InputError("No tracked nodule has a reference position to compare with.")
    truth = np.array([reference[row.identifier] for row in rows])
    errors = {
        "field": np.array([row.field_position for row in rows]) - truth,
        "predicted": np.array([row.predicted_position for row in rows]) - truth,
    }
    lengths = {name: np.linalg.norm(error, axis=1) for name, error in errors.items()}
    return {
        "tre_mm": {name: summarize_errors(values) for name, values in lengths.items()},
        "cpm_percent": {name: points_within(values) for name, values in lengths.items()},
    }


def state_quality(tracking: Tracking, expected: Dictionary[str, str]) -> dict:
    """Agreement with the expected states, by identifier of the track.

    ``right`` of ``n``, and ``wrong``: one entry of name, expected and found for each other.
    """
    rows = [row for row in tracking if row.identifier in expected]
    wrong = [
        {"name": row.name, "expected": expected[row.identifier], "found": row.state}
        for row in rows
        if row.state != expected[row.identifier]
    ]
    return {"n": len(rows), "right": len(rows) - len(wrong), "wrong": wrong}


def pairing_quality(tracking: Tracking, partners: Dictionary[str, str]) -> dict:
    """Agreement of the proposed pairs with the true ones.

    ``partners``: identifier of the true fixed nodule by identifier of the track. ``paired``: how
    many of the ``n`` got a partner, ``right``: how many the true one, in percent of ``n`` as
    ``right_percent``; ``matched`` counts the rows of that state.
    """
    rows = [row for row in tracking if row.identifier in partners]
    paired = [row for row in rows if row.fixed_identifier is not None]
    right = sum(row.fixed_identifier == partners[row.identifier] for row in paired)
    return {
        "n": len(rows),
        "paired": len(paired),
        "right": right,
        "right_percent": 100 * right / max(len(rows), 1),
        "matched": sum(row.state == "matched" for row in rows),
    }
