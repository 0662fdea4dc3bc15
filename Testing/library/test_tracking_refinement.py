"""Local refinement: a known shift is found, and nothing is believed that is not there."""

from __future__ import annotations

import numpy as np
import pytest
from nodule_scene import SHIFT, Translation, at, scene

from GlideRegLib.errors import SettingsError
from GlideRegLib.tracking.refinement import RefineSettings, refine

PLACE = at(38, 40, 36)
SETTINGS = RefineSettings()


def test_a_known_error_of_the_field_is_corrected_to_a_tenth_of_a_voxel() -> None:
    fixed, moving = scene({PLACE: 3.0}, np.zeros(3)), scene({PLACE: 3.0}, SHIFT)
    error = np.array([1.3, -0.8, 0.45])
    mapping = Translation(tuple(error))
    predicted = mapping.inverse_points(np.array([PLACE + SHIFT]))[0]
    assert np.allclose(predicted - PLACE, error)
    found = refine(mapping, fixed, moving, predicted, SETTINGS)
    assert found.accepted
    assert np.abs(predicted + found.shift - PLACE).max() < 0.12
    assert found.score > 0.97 > found.score_before


def test_growth_does_not_hinder_it() -> None:
    fixed, moving = scene({PLACE: 4.2}, np.zeros(3)), scene({PLACE: 3.0}, SHIFT)
    mapping = Translation((0.9, 0.7, -1.0))
    predicted = mapping.inverse_points(np.array([PLACE + SHIFT]))[0]
    found = refine(mapping, fixed, moving, predicted, SETTINGS)
    assert found.accepted
    assert np.linalg.norm(predicted + found.shift - PLACE) < 0.2


def test_a_nodule_that_is_gone_is_not_found_in_a_neighbor() -> None:
    other = (PLACE[0] + 6.5, PLACE[1], PLACE[2])
    fixed, moving = scene({other: 3.0}, np.zeros(3)), scene({PLACE: 3.0, other: 3.0}, SHIFT)
    found = refine(Translation(), fixed, moving, np.asarray(PLACE), SETTINGS)
    assert not found.accepted
    assert found.reason


def test_the_shift_stays_within_the_bound() -> None:
    fixed, moving = scene({PLACE: 3.0}, np.zeros(3)), scene({PLACE: 3.0}, SHIFT)
    mapping = Translation((2.0, 0, 0))
    predicted = mapping.inverse_points(np.array([PLACE + SHIFT]))[0]
    found = refine(mapping, fixed, moving, predicted, RefineSettings(bound_mm=1.0))
    assert np.abs(found.shift).max() <= 1.0
    assert not found.accepted
    assert "edge of the search range" in found.reason


def test_nothing_is_accepted_where_the_window_leaves_the_image() -> None:
    corner = at(1, 1, 1)
    volume = scene({corner: 3.0}, np.zeros(3))
    mapping = Translation(shift=np.zeros(3))
    found = refine(mapping, volume, volume, np.asarray(corner), SETTINGS)
    assert not found.accepted
    assert found.shift == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    "settings",
    [
        RefineSettings(bound_mm=50),
        RefineSettings(spacing_mm=0),
        RefineSettings(values=(100, 0)),
        RefineSettings(penalty=-1),
        RefineSettings(scales=()),
    ],
)
def test_settings_out_of_range_are_refused(settings: RefineSettings) -> None:
    with pytest.raises(SettingsError):
        settings.check()
