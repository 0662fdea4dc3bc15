"""Tracking on a small scene with known truth: states, identities, measurements, records, files."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nodule_scene import SHIFT, Translation, at, prior_nodule, scene

from GlideRegLib.errors import InputError
from GlideRegLib.geometry import Grid
from GlideRegLib.tracking.evaluation import pairing_quality, position_quality, state_quality
from GlideRegLib.tracking.files import read_tracking, tracking_csv, write_tracking
from GlideRegLib.tracking.measures import measure
from GlideRegLib.tracking.measuring import measured_row
from GlideRegLib.tracking.nodules import Nodule, nodules_from_labels
from GlideRegLib.tracking.track import (
    Gates,
    MeasureSettings,
    RefineSettings,
    Tracking,
    TrackSettings,
    track,
)
from GlideRegLib.volume import Volume

STAYS, GROWS, GONE, FRESH = at(25, 28, 30), at(55, 30, 34), at(30, 55, 40), at(58, 58, 48)
#: In the prior it lies inside, in the current scan above the image.
ABOVE = at(40, 40, 77.5 + 2.5 - SHIFT[2])
ABOVE = (ABOVE[0], ABOVE[1], at(0, 0, -3.5)[2])
LAST_DAYS = MeasureSettings(segment=True, days=180)


@pytest.fixture(scope="module")
def images() -> tuple[Volume, Volume]:
    """Current and prior."""
    current = scene({STAYS: 4.0, GROWS: 5.0, FRESH: 3.5}, np.zeros(3))
    prior = scene({STAYS: 4.0, GROWS: 4.0, GONE: 4.0, ABOVE: 4.0}, SHIFT)
    return current, prior


@pytest.fixture(scope="module")
def priors() -> list[Nodule]:
    places = {"stays": STAYS, "grows": GROWS, "gone": GONE, "above": ABOVE}
    return [prior_nodule(name, place) for name, place in places.items()]


@pytest.fixture(scope="module")
def currents() -> list[Nodule]:
    # In another order than the priors.
    return [Nodule("c1", FRESH), Nodule("c2", GROWS), Nodule("c3", STAYS)]


@pytest.fixture(scope="module")
def tracking(images: tuple, priors: list, currents: list) -> Tracking:
    mapping = Translation((0.8, -0.6, 0.5))
    settings = TrackSettings(measure=LAST_DAYS)
    return track(mapping, *images, priors, currents, settings)


def states(tracking: Tracking) -> dict[str, str]:
    return {row.name: row.state for row in tracking}


def test_every_nodule_gets_its_state(tracking: Tracking) -> None:
    assert states(tracking) == {
        "stays": "matched",
        "grows": "matched",
        "gone": "resolved",
        "above": "outside field of view",
        "c1": "new",
    }


def test_pairs_and_identities_are_the_right_ones(
    tracking: Tracking, priors: list, currents: list
) -> None:
    expected = {"stays": currents[2], "grows": currents[1]}
    for row, nodule in zip(tracking.rows[:2], priors, strict=False):
        assert row.identifier == row.moving_identifier == nodule.identifier
        assert row.fixed_identifier == expected[row.name].identifier
        assert row.fixed_center == expected[row.name].center
    assert tracking.rows[-1].identifier == currents[0].identifier
    assert len({row.identifier for row in tracking}) == len(tracking)


def test_positions_are_those_of_the_field_and_of_the_refinement(tracking: Tracking) -> None:
    row = tracking.rows[0]
    assert np.allclose(row.field_position, np.add(STAYS, (0.8, -0.6, 0.5)), atol=1e-6)
    assert row.refinement.accepted
    assert np.linalg.norm(np.subtract(row.predicted_position, STAYS)) < 0.2
    assert row.distance_mm == pytest.approx(
        np.linalg.norm(np.subtract(row.predicted_position, row.fixed_center))
    )
    new = tracking.rows[-1]
    assert np.allclose(new.moving_predicted, np.asarray(FRESH) + SHIFT - (0.8, -0.6, 0.5))
    assert new.predicted_position is None


def test_growth_is_measured_on_the_native_images(tracking: Tracking) -> None:
    stays, grows = tracking.rows[:2]
    assert stays.growth.volume_change_percent == pytest.approx(0, abs=6)
    assert grows.growth.volume_change_percent == pytest.approx(95.3, abs=8)
    assert grows.growth.doubling_time_days == pytest.approx(
        180 * np.log(2) / np.log(1.953), rel=0.1
    )
    assert grows.moving_method == grows.fixed_method == "segmented"
    assert tracking.rows[2].moving_measurement is not None
    assert tracking.rows[2].fixed_measurement is None
    assert tracking.rows[4].fixed_measurement is not None


def test_refinement_can_be_switched_off(images: tuple, priors: list) -> None:
    settings = TrackSettings(refine=RefineSettings(enabled=False))
    row = track(Translation((1.0, 0, 0)), *images, priors, None, settings).rows[0]
    assert row.refinement is None
    assert row.predicted_position == row.field_position


def test_without_current_nodules_rows_are_predicted_and_measured_where_found(
    images: tuple, priors: list
) -> None:
    found = track(Translation(), *images, priors, None, TrackSettings(measure=LAST_DAYS))
    assert [row.state for row in found] == ["predicted"] * 3 + ["outside field of view"]
    assert found.rows[1].growth.volume_change_percent == pytest.approx(95.3, abs=8)
    assert found.rows[2].fixed_measurement is None  # it is gone: nothing is segmented there


def test_an_uncertain_field_decides_nothing(images: tuple, priors: list, currents: list) -> None:
    doubt = track(Translation(expected_mm=3.5), *images, priors, currents)
    assert set(states(doubt).values()) == {"review", "outside field of view"}
    assert "uncertain" in doubt.rows[0].remarks[0]
    assert doubt.rows[0].uncertainty_mm == pytest.approx(3.5)
    sure = track(Translation(expected_mm=0.5), *images, priors, currents)
    assert states(sure)["stays"] == "matched"


def test_given_uncertainty_goes_before_that_of_the_field(images: tuple, priors: list) -> None:
    found = track(
        Translation(expected_mm=9.0),
        *images,
        priors,
        uncertainty=lambda points: np.arange(len(points)) + 0.25,
    )
    assert [row.uncertainty_mm for row in found] == [0.25, 1.25, 2.25, 3.25]


def test_an_ambiguous_match_gets_no_growth_before_it_is_decided(
    images: tuple, priors: list
) -> None:
    twins = [Nodule("a", GROWS), Nodule("b", (GROWS[0] + 3.5, GROWS[1], GROWS[2]))]
    settings = TrackSettings(measure=LAST_DAYS)
    found = track(Translation(), *images, priors[1:2], twins, settings)
    row = found.rows[0]
    assert [r.state for r in found] == ["ambiguous", "ambiguous"]
    assert row.fixed_identifier == twins[0].identifier
    assert row.candidates == 2
    assert row.growth is None
    decided = measured_row(replace(row, decision="confirmed"), images[0], twins[0], LAST_DAYS)
    assert decided.growth.volume_change_percent == pytest.approx(95.3, abs=8)
    assert not any("ambiguous" in remark for remark in decided.remarks)


def test_what_the_prior_does_not_show_is_not_new(images: tuple) -> None:
    low = Nodule("low", at(40, 40, 78.0))  # the prior ends 6 mm lower
    found = track(Translation(), *images, [prior_nodule("s", STAYS)], [low])
    assert found.rows[1].state == "outside field of view"


def test_marked_voxels_are_measured_as_they_are(images: tuple, priors: list) -> None:
    labels = (images[1].array > -400).astype(np.uint8)
    marked = nodules_from_labels(Volume(labels, images[1].grid)).nodules
    settings = TrackSettings(measure=LAST_DAYS)
    found = track(Translation(), *images, marked, None, settings)
    nearest = min(found, key=lambda r: np.linalg.norm(np.subtract(r.predicted_position, STAYS)))
    assert nearest.moving_measurement.volume_mm3 == pytest.approx(4 / 3 * np.pi * 64, rel=0.1)
    assert (nearest.moving_method, nearest.fixed_method) == ("marked", "segmented")
    assert any("one side was marked" in remark for remark in nearest.remarks)


def other_grid(images: tuple, center: np.ndarray, radius: float) -> Nodule:
    """A ball around a place of the prior on voxels of 0.9 mm that are not those of the image."""
    grid = Grid((40, 40, 40), (0.9,) * 3, tuple(center - 17.3))
    index = np.stack(np.meshgrid(*[np.arange(40)] * 3, indexing="ij")[::-1], axis=-1)
    away = np.linalg.norm(grid.to_physical(index.reshape(-1, 3)) - center, axis=1)
    mask = Volume((away <= radius).reshape(grid.shape).astype(np.uint8), grid)
    return Nodule("m", tuple(float(v) for v in center), mask)


def test_a_mask_on_other_voxels_is_measured_on_those_of_the_image(images: tuple) -> None:
    nodule = other_grid(images, np.asarray(STAYS) + SHIFT, 4.0)
    row = track(Translation(), *images, [nodule]).rows[0]
    assert row.moving_measurement.volume_mm3 == pytest.approx(4 / 3 * np.pi * 64, rel=0.1)
    assert row.moving_method == "marked"
    assert "other voxels" in row.remarks[0]
    assert measure(images[1], row.moving_mask) == row.moving_measurement


def test_a_mask_that_misses_the_image_is_segmented_when_that_is_wanted(images: tuple) -> None:
    place = np.asarray(STAYS) + SHIFT
    away = other_grid(images, place + 500.0, 4.0)
    nodule = replace(away, center=tuple(float(v) for v in place))
    row = track(Translation(), *images, [nodule]).rows[0]
    assert row.moving_measurement is None
    assert "no voxel" in row.remarks[0]
    found = track(Translation(), *images, [nodule], None, TrackSettings(measure=LAST_DAYS)).rows[0]
    assert found.moving_method == "segmented"
    assert found.moving_measurement.volume_mm3 == pytest.approx(4 / 3 * np.pi * 64, rel=0.1)
    assert "segmented here" in found.remarks[0]


def test_nodules_far_outside_their_image_are_refused(images: tuple, priors: list) -> None:
    flipped = [replace(n, center=(-n.center[0], -n.center[1], n.center[2])) for n in priors]
    with pytest.raises(InputError, match=r"LPS or RAS"):
        track(Translation(), *images, flipped)


def test_a_prior_nodule_outside_of_its_own_image_is_not_resolved(images: tuple) -> None:
    """Its place says nothing; it would lie inside the current image."""
    beyond = replace(prior_nodule("beyond", STAYS), center=at(40, 40, 82.5))
    found = track(Translation(), *images, [prior_nodule("s", STAYS), beyond], [])
    assert [row.state for row in found] == ["resolved", "review"]
    assert "outside of the prior image" in found.rows[1].remarks[0]
    marked = [Nodule("m", tuple(np.subtract(beyond.center, SHIFT)))]
    pair = track(Translation(), *images, [prior_nodule("s", STAYS), beyond], marked).rows[1]
    assert (pair.state, pair.fixed_center) == ("review", marked[0].center)


def test_a_current_nodule_outside_of_its_own_image_is_not_new(images: tuple) -> None:
    beyond = Nodule("beyond", at(40, 40, -3))
    found = track(Translation(), *images, [prior_nodule("s", STAYS)], [Nodule("c", STAYS), beyond])
    assert [row.state for row in found] == ["matched", "review"]
    assert "outside of the current image" in found.rows[1].remarks[0]


@pytest.mark.parametrize("value", [-3024.0, -1024.0])
def test_padding_is_no_image(images: tuple, priors: list, value: float) -> None:
    """GROWS lies where the current scan was padded: nobody can say that it is resolved."""
    columns = np.arange(images[0].array.shape[2])
    array = np.where(columns >= 36, value, np.maximum(images[0].array, -1000))
    padded = Volume(array.astype(np.float32), images[0].grid)
    found = track(Translation(), padded, images[1], priors[:3], [Nodule("c", STAYS)])
    assert states(found) == {
        "stays": "matched",
        "grows": "outside field of view",
        "gone": "resolved",
    }
    turned = track(Translation(), images[0], padded, [], [Nodule("n", FRESH)])
    assert turned.rows[0].state == "outside field of view"


def test_equal_identities_are_refused_and_never_given_twice(images: tuple, priors: list) -> None:
    twin = replace(priors[1], identifier=priors[0].identifier)
    with pytest.raises(InputError, match="same identity"):
        track(Translation(), *images, [priors[0], twin])
    far = Nodule("f", FRESH, identifier=priors[2].identifier)
    found = track(Translation(), *images, priors, [far])
    assert len({row.identifier for row in found}) == len(found) == 5
    assert found.rows[-1].fixed_identifier == far.identifier


def test_a_cancelled_run_ends(images: tuple, priors: list) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        track(Translation(), *images, priors, check=stop)


# --- records and files ----------------------------------------------------------------------------


def test_json_brings_everything_back(tracking: Tracking, tmp_path: Path) -> None:
    first, second, *others = tracking.rows
    first = replace(first, decision="rejected", rejected_from="corrected")
    second = replace(second, by_hand=True, remarks=("One.", "Two."))
    decided = replace(tracking, rows=(first, second, *others), quality={"n": 3})
    write_tracking(tmp_path / "nodules.json", decided)
    assert read_tracking(tmp_path / "nodules.json") == decided
    data = json.loads((tmp_path / "nodules.json").read_text("utf-8"))
    assert (data["schema"], data["frame"], data["units"]) == ("glidereg-nodules-1", "LPS", "mm")
    assert "Research use only" in data["notice"]


def test_flags_survive_the_json(images: tuple, priors: list, currents: list) -> None:
    measure = replace(LAST_DAYS, reference_thresholds=True)
    found = track(Translation(), *images, priors, currents, TrackSettings(measure=measure))
    again = Tracking.from_dict(json.loads(json.dumps(found.to_dict())))
    assert again.rows[1].growth.flags[0].reached is True
    assert again == found


def test_csv_states_units_and_both_frames(tracking: Tracking) -> None:
    rows = list(csv.DictReader(io.StringIO(tracking_csv(tracking, ["p.jpg"] * 5))))
    first = rows[0]
    for axis, sign in zip("xyz", (-1, -1, 1), strict=True):
        lps, ras = (float(first[f"current_{axis}_{frame}_mm"]) for frame in ("lps", "ras"))
        assert lps == pytest.approx(sign * ras)
    assert float(first["current_x_lps_mm"]) == pytest.approx(STAYS[0], abs=1e-3)
    assert float(rows[1]["volume_change_percent"]) == pytest.approx(
        tracking.rows[1].growth.volume_change_percent, abs=1e-3
    )
    assert rows[4]["prior_x_lps_mm"] == ""
    assert first["track_uuid"] == tracking.rows[0].identifier
    assert first["picture"] == "p.jpg"
    assert "Research use only" in first["notice"]


def test_a_name_is_no_formula_in_a_spreadsheet(tracking: Tracking) -> None:
    row = replace(tracking.rows[0], name="=1+1\nx")
    cells = next(csv.DictReader(io.StringIO(tracking_csv(Tracking((row,))))))
    assert cells["nodule"] == "'=1+1 x"


def test_an_empty_list_still_has_a_header() -> None:
    assert tracking_csv(Tracking(())).startswith("nodule,state,")


def test_a_row_can_be_replaced_and_the_fixed_side_goes_on(tracking: Tracking) -> None:
    rejected = replace(tracking.rows[0], decision="rejected")
    changed = tracking.with_row(rejected)
    assert changed.by_identifier(rejected.identifier).decision == "rejected"
    there = [n.name for n in tracking.current_nodules() if n.located]
    assert there == ["stays", "grows", "c1"]
    kept = [n.name for n in changed.current_nodules()]
    assert kept == ["grows", "gone", "above", "c1"]
    with pytest.raises(KeyError):
        tracking.by_identifier("nobody")


# --- evaluation -----------------------------------------------------------------------------------


def test_measures_against_the_truth(tracking: Tracking, currents: list) -> None:
    truth = {tracking.rows[0].identifier: STAYS, tracking.rows[1].identifier: GROWS}
    quality = position_quality(tracking, truth)
    field = float(np.linalg.norm((0.8, -0.6, 0.5)))
    assert quality["tre_mm"]["field"]["mean"] == pytest.approx(field, abs=1e-6)
    assert quality["cpm_percent"]["field"] == {"0.5": 0.0, "1": 0.0, "2": 100.0, "5": 100.0}
    assert quality["cpm_percent"]["predicted"]["0.5"] == 100.0
    expected = dict.fromkeys((r.identifier for r in tracking.rows[:3]), "matched")
    agreement = state_quality(tracking, expected)
    assert (agreement["right"], agreement["n"]) == (2, 3)
    assert agreement["wrong"][0]["name"] == "gone"
    partners = {
        tracking.rows[0].identifier: currents[2].identifier,
        tracking.rows[1].identifier: currents[0].identifier,
    }
    pairing = pairing_quality(tracking, partners)
    assert (pairing["paired"], pairing["right"], pairing["right_percent"]) == (2, 1, 50.0)


def test_measuring_against_nothing_is_refused(tracking: Tracking) -> None:
    with pytest.raises(InputError, match="reference"):
        position_quality(tracking, {"nobody": STAYS})


def test_gates_are_parameters(images: tuple, priors: list) -> None:
    mark = [Nodule("c", (STAYS[0] + 1.5, STAYS[1], STAYS[2]))]
    for gates, state in ((Gates(), "matched"), (Gates(matched_mm=1.0), "review")):
        settings = TrackSettings(gates=gates, refine=RefineSettings(enabled=False))
        assert track(Translation(), *images, priors[:1], mark, settings).rows[0].state == state
