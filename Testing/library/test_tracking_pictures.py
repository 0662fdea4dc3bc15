"""The sheet of a nodule: what is where, the same window and scale, and what is missing."""

from __future__ import annotations

import io

import numpy as np
import pytest
from nodule_scene import SHIFT, Translation, at, prior_nodule, scene
from PIL import Image
from scipy import ndimage

from GlideRegLib.tracking.nodules import Nodule
from GlideRegLib.tracking.pictures import WINDOW_HU, _Column, _picture, _places, nodule_sheet
from GlideRegLib.tracking.track import Tracking, track
from GlideRegLib.volume import Volume

PLACE = at(38, 40, 36)
ABOVE = (PLACE[0], PLACE[1], at(0, 0, -4.0)[2])


@pytest.fixture(scope="module")
def images() -> tuple[Volume, Volume]:
    return scene({PLACE: 4.0}, np.zeros(3)), scene({PLACE: 4.0, ABOVE: 4.0}, SHIFT)


@pytest.fixture(scope="module")
def tracking(images: tuple) -> Tracking:
    priors = [prior_nodule("a", PLACE), prior_nodule("b", ABOVE)]
    return track(Translation(), *images, priors, [Nodule("c", PLACE)])


def cells(sheet: bytes) -> np.ndarray:
    """Mean color in the middle of each of the nine pictures: (3 planes, 3 columns, RGB)."""
    pixels = np.asarray(Image.open(io.BytesIO(sheet)).convert("RGB"), dtype=float)
    found = np.zeros((3, 3, 3))
    for i in range(3):
        for j in range(3):
            # Beside the ring, inside a nodule of 8 mm: pictures are 245 pixels apart.
            row, column = 90 + 120 + i * 245, 30 + 120 + j * 245
            found[i, j] = pixels[row + 10 : row + 14, column + 8 : column + 14].mean(axis=(0, 1))
    return found


def test_the_nodule_stands_in_the_middle_of_all_nine_pictures(
    images: tuple, tracking: Tracking
) -> None:
    sheet = nodule_sheet(tracking.rows[0], Translation(), *images, 1)
    low, high = WINDOW_HU
    expected = 255 * (30 - low) / (high - low)
    assert np.abs(cells(sheet) - expected).max() < 15


def test_a_part_that_an_image_does_not_show_is_blue(images: tuple, tracking: Tracking) -> None:
    found = cells(nodule_sheet(tracking.rows[1], Translation(), *images, 2))
    red, blue = found[:, 2, 0], found[:, 2, 2]
    assert tracking.rows[1].state == "outside field of view"
    assert (blue - red > 20).all()
    assert np.abs(found[:, 0, 0] - found[:, 0, 2]).max() < 6  # the prior shows it, in gray


def test_the_warped_picture_is_the_prior_seen_through_the_transform(images: tuple) -> None:
    def bent(points: np.ndarray) -> np.ndarray:
        wave = 1.5 * np.sin(points[:, [1, 2, 0]] / 9)
        return points + SHIFT + wave

    right, down = np.array((1.0, 0, 0)), np.array((0, 1.0, 0))
    column = _Column("warped", PLACE, images[1], bent)
    found = _picture(images[1], _places(column, 44.0, right, down))
    steps = (np.arange(found.shape[0]) + 0.5) / found.shape[0] * 44 - 22
    offsets = steps[None, :, None] * right + steps[:, None, None] * down
    places = bent((np.asarray(PLACE) + offsets).reshape(-1, 3))
    index = images[1].grid.to_index(places)[:, ::-1].T
    exact = ndimage.map_coordinates(images[1].array, index, order=1).reshape(found.shape)
    assert not np.ma.getmaskarray(found).any()
    assert np.abs(np.ma.getdata(found) - exact).max() < 40  # HU, at an edge of 880 HU


def test_a_sheet_is_small_and_names_nobody(images: tuple, tracking: Tracking) -> None:
    sheet = nodule_sheet(tracking.rows[0], Translation(), *images, 1)
    assert len(sheet) < 150_000
    assert not Image.open(io.BytesIO(sheet)).getexif()
