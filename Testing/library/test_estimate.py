"""The estimate of the run time: of the right size, and it grows with what costs."""

from __future__ import annotations

import pytest

from GlideRegLib.estimate import expected_seconds
from GlideRegLib.settings import Settings, with_changes

LUNG = (157.0, 214.0, 322.0)


def plain(preset: str, **changes: object) -> dict:
    chosen = with_changes(Settings.preset(preset), threads=2, device="cpu", **changes)
    return chosen.to_dict()


LOCAL = {"encoder": "none"}


@pytest.mark.parametrize(
    ("preset", "features", "measured"),
    [("fast", LOCAL, 5.0), ("standard", LOCAL, 10.0), ("fast", {"encoder": "mobile_sam"}, 25.4)],
)
def test_it_is_within_a_factor_of_two_of_what_was_measured(preset, features, measured) -> None:
    found = expected_seconds(LUNG, plain(preset, features=features))
    assert measured / 2 < found < measured * 2


def test_a_large_pair_is_estimated_as_it_was_measured() -> None:
    """LUNG1-001 and -002, 100 liters: 56 CPU seconds, about 34 s with two cores."""
    found = expected_seconds((500.0, 500.0, 402.0), plain("fast", features=LOCAL))
    assert 34 / 1.5 < found < 34 * 1.5


def test_finer_grids_and_encoders_take_longer() -> None:
    fast, standard, fine = (
        expected_seconds(LUNG, plain(p, features=LOCAL)) for p in ("fast", "standard", "fine")
    )
    assert fast < standard < fine
    assert expected_seconds(LUNG, plain("fast", features={"encoder": "mobile_sam"})) > fast
    assert expected_seconds(LUNG, plain("paper")) > expected_seconds(LUNG, plain("fine"))


def test_what_was_never_measured_is_not_guessed() -> None:
    assert expected_seconds(LUNG, Settings.preset("fast").to_dict(), cuda=True) is None
    assert expected_seconds(LUNG, plain("fast"), cuda=True) is not None  # it asks for the CPU
