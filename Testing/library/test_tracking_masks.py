"""What was measured can be looked at: masks in memory, in files, in pictures."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nodule_scene import GONE, SHIFT, STAYS, Translation, prior_nodule, scene, write_small_pair
from PIL import Image

from GlideRegLib.cli import main
from GlideRegLib.tracking.files import read_tracking
from GlideRegLib.tracking.masks import masks_of, read_masks, with_masks, write_masks
from GlideRegLib.tracking.measures import measure
from GlideRegLib.tracking.nodules import Nodule, read_nodules
from GlideRegLib.tracking.pictures import nodule_sheet
from GlideRegLib.tracking.track import MeasureSettings, Tracking, TrackSettings, track
from GlideRegLib.volume import Volume, read_labels, read_volume


@pytest.fixture(scope="module")
def images() -> tuple[Volume, Volume]:
    """Current and prior."""
    return scene({STAYS: 4.0}, np.zeros(3)), scene({STAYS: 4.0, GONE: 4.0}, SHIFT)


@pytest.fixture(scope="module")
def tracking(images: tuple) -> Tracking:
    settings = TrackSettings(measure=MeasureSettings(segment=True))
    priors = [prior_nodule("a", STAYS), prior_nodule("bé", GONE)]
    return track(Translation(), *images, priors, [Nodule("c", STAYS)], settings)


def test_a_row_holds_the_voxels_that_were_measured(tracking: Tracking, images: tuple) -> None:
    row = tracking.rows[0]
    assert measure(images[1], row.moving_mask) == row.moving_measurement
    assert measure(images[0], row.fixed_mask) == row.fixed_measurement
    assert tracking.rows[1].fixed_mask is None


def test_json_holds_no_voxels(tracking: Tracking) -> None:
    text = json.dumps(tracking.to_dict())
    assert "mask" not in text
    assert Tracking.from_dict(json.loads(text)) == tracking


def test_files_bring_the_voxels_back(tracking: Tracking, images: tuple, tmp_path: Path) -> None:
    maps, notes = masks_of(tracking, images[0].grid, images[1].grid)
    write_masks(tmp_path, tracking, maps)
    assert not notes
    again = with_masks(Tracking.from_dict(tracking.to_dict()), tmp_path)
    for row, known in zip(again, tracking, strict=True):
        assert measure(images[1], row.moving_mask) == known.moving_measurement
    assert again.rows[1].fixed_mask is None
    found = read_nodules(tmp_path / "nodules-prior.nrrd").nodules
    assert [n.name for n in found] == ["a", "bé"]
    assert set(read_masks(tmp_path / "nodules-prior.nrrd")) == {r.identifier for r in tracking}


def test_voxels_that_two_nodules_share_are_said(tracking: Tracking, images: tuple) -> None:
    twice = replace(tracking.rows[0], identifier="other", name="twin")
    both = replace(tracking, rows=(tracking.rows[0], twice))
    maps, notes = masks_of(both, images[0].grid, images[1].grid)
    assert np.unique(maps["current"].array).tolist() == [0, 1]
    assert notes == (
        "Nodules share voxels in the prior and the current image; in the files of masks such a "
        "voxel belongs to the first of them.",
    )


# --- the command line ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_small_pair(tmp_path_factory.mktemp("small"))


def run(small: dict, output: Path, *options: str) -> Tracking:
    arguments = ["track", str(small["fixed"]), str(small["moving"]), "-o", str(output)]
    arguments += ["--moving-nodules", str(small["before"]), "--fixed-nodules", str(small["now"])]
    assert main([*arguments, "--transform", str(small["shift"]), *options]) == 0
    return read_tracking(output / "nodules.json")


def test_the_command_writes_a_label_map_for_each_scan(small: dict, tmp_path: Path) -> None:
    found = run(small, tmp_path, "--segment")
    prior, current = (read_labels(tmp_path / f"nodules-{t}.nrrd") for t in ("prior", "current"))
    assert prior.grid == read_volume(small["moving"]).grid
    assert current.grid == read_volume(small["fixed"]).grid
    counts = [int((prior.array == k).sum()) for k in (1, 2)]
    assert counts == [row.moving_measurement.voxels for row in found]
    assert int((current.array == 1).sum()) == found.rows[0].fixed_measurement.voxels


def test_masks_of_an_earlier_run_do_not_stay(small: dict, tmp_path: Path) -> None:
    run(small, tmp_path, "--segment")
    run(small, tmp_path)
    assert not list(tmp_path.glob("*.nrrd"))


def test_the_next_run_has_the_masks_of_the_last(small: dict, tmp_path: Path) -> None:
    run(small, tmp_path / "first", "--segment")
    nodule = read_nodules(tmp_path / "first" / "nodules.json").nodules[0]
    assert int(nodule.mask.array.sum()) == nodule.measurement.voxels


def test_the_masks_keep_their_image_when_the_prior_is_the_fixed_one(
    small: dict, tmp_path: Path
) -> None:
    run(small, tmp_path, "--segment", "--prior", "fixed")
    prior = read_labels(tmp_path / "nodules-prior.nrrd")
    place = prior.grid.to_index(np.array([STAYS]))[0].round().astype(int)
    assert prior.array[tuple(place[::-1])] == 1


# --- pictures -----------------------------------------------------------------------------------


def green(sheet: bytes) -> np.ndarray:
    """How many pixels of each of the nine pictures have the color of the outline."""
    pixels = np.asarray(Image.open(io.BytesIO(sheet)).convert("RGB"), dtype=float)
    marked = (pixels[..., 1] - np.maximum(pixels[..., 0], pixels[..., 2])) > 30
    cut = [[(90 + 245 * i, 30 + 245 * j) for j in range(3)] for i in range(3)]
    return np.array([[marked[a : a + 240, b : b + 240].sum() for a, b in row] for row in cut])


def test_pictures_show_the_outline_of_what_was_measured(tracking: Tracking, images: tuple) -> None:
    row = tracking.rows[0]
    counts = green(nodule_sheet(row, Translation(), *images, 1))
    # A circle of 8 mm is 138 pixels around.
    assert (counts > 60).all() and (counts < 900).all(), counts
    without = replace(row, moving_mask=None, fixed_mask=None)
    assert (green(nodule_sheet(without, Translation(), *images, 1)) == 0).all()
    prior_alone = green(nodule_sheet(tracking.rows[1], Translation(), *images, 2))
    assert (prior_alone[:, :2] > 60).all() and (prior_alone[:, 2] == 0).all()


def test_the_outline_runs_around_the_nodule(tracking: Tracking, images: tuple) -> None:
    """Its middle is the nodule's, in the native column; its radius is 4 mm."""
    sheet = nodule_sheet(tracking.rows[0], Translation(), *images, 1)
    pixels = np.asarray(Image.open(io.BytesIO(sheet)).convert("RGB"), dtype=float)
    part = pixels[90 : 90 + 241, 30 : 30 + 241]
    rows, columns = np.nonzero(part[..., 1] - np.maximum(part[..., 0], part[..., 2]) > 30)
    middle, scale = (rows.mean(), columns.mean()), 241 / 44
    away = np.hypot(rows - middle[0], columns - middle[1]) / scale
    assert np.allclose(middle, 120, atol=8)
    assert away.mean() == pytest.approx(4.0, abs=0.6)
