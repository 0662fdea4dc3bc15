"""The report: self-contained, honest about what was not measured, upright on any grid."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from GlideRegLib.field import DisplacementField
from GlideRegLib.geometry import Grid
from GlideRegLib.report import build_report
from GlideRegLib.report.figures import checkerboard, red_cyan
from GlideRegLib.report.planes import display_window, plane_through
from GlideRegLib.result import NOTICE, Result
from GlideRegLib.volume import Volume

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
FLIPPED = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, -1.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, -1.0, 0.0)
SAGITTAL = (0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
OBLIQUE = tuple(
    np.array([[0.98, -0.199, 0.0], [0.199, 0.98, 0.0], [0.0, 0.0, 1.0]]).ravel().tolist()
)


def make_result(grid: Grid) -> tuple[Result, Volume, Volume]:
    """A small result with a smooth field, and its images."""
    x, y, z = grid.index_tensor().double()
    wave = torch.sin(x / 5) * torch.cos(y / 6) * torch.sin(z / 4)
    image = (600 * wave - 400).numpy().astype(np.float32)
    vectors = torch.stack((2 * wave, wave, -wave)).float()
    body = np.ones(grid.shape, dtype=bool)
    field = DisplacementField(vectors, grid).with_zero_border(grid)
    result = Result(field, np.eye(4), grid, body, "ct", -1024.0)
    result.report.update(
        quality=result.field_quality(),
        encoder={"name": "none", "weights_sha256": None, "trained": False},
        messages=["warning: <script>alert('x')</script>"],
    )
    return result, Volume(image, grid), Volume(image + 5, grid)


@pytest.fixture(scope="module")
def grid() -> Grid:
    return Grid((24, 20, 16), (2.0, 2.0, 3.0), (5.0, -4.0, 30.0))


def test_the_report_loads_nothing_and_says_research_use_only_twice(grid: Grid) -> None:
    result, fixed, moving = make_result(grid)
    html = build_report(result, fixed, moving)
    assert html.count(NOTICE) == 2
    bare = re.sub(r'src="data:image/png;base64,[^"]+"', "", html)
    assert "src=" not in bare
    assert "http" not in bare
    assert "url(" not in bare
    assert len(html) < 4e6


def test_what_was_not_measured_is_called_so(grid: Grid) -> None:
    result, fixed, moving = make_result(grid)
    assert build_report(result, fixed, moving).count("not measured") == 3  # TRE, Dice, cost


def test_hostile_text_is_escaped(grid: Grid) -> None:
    html = build_report(*make_result(grid))
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_landmarks_and_labels_are_shown_with_their_numbers(grid: Grid) -> None:
    result, fixed, moving = make_result(grid)
    points = grid.to_physical(np.random.default_rng(0).uniform(2, 12, (9, 3)))
    labels = Volume((fixed.array > 0).astype(np.uint8), grid)
    result.report["quality"].update(result.landmark_quality(points, points + 1.0))
    result.report["quality"].update(result.label_quality(labels, labels))
    html = build_report(
        result,
        fixed,
        moving,
        errors=result.landmark_errors(points, points + 1.0),
        labels=(labels, labels),
    )
    assert f"{result.report['quality']['tre_mm']['after']['mean']:.2f} mm" in html
    assert f"{result.report['quality']['mean_dice']['after']:.3f}" in html
    assert html.count("<img") == 3


@pytest.mark.parametrize("direction", [IDENTITY, FLIPPED, CORONAL, SAGITTAL, OBLIQUE])
@pytest.mark.parametrize(
    ("name", "offset", "corner"),
    [
        ("axial", (-1, -1, 0), "right anterior: left top"),
        ("coronal", (-1, 0, 1), "right superior: left top"),
        ("sagittal", (0, -1, 1), "anterior superior: left top"),
    ],
)
def test_pictures_are_upright_on_any_grid(
    direction: tuple[float, ...], name: str, offset: tuple[int, int, int], corner: str
) -> None:
    grid = Grid((21, 21, 21), (2.0, 2.0, 2.0), (3.0, 4.0, 5.0), direction)
    array = np.zeros(grid.shape, np.float32)
    mark = grid.center + 12.0 * np.array(offset, dtype=float)
    x, y, z = np.round(grid.to_index(mark[None])[0]).astype(int)
    array[z, y, x] = 1.0
    picture = plane_through(grid, name, mark).cut(array)
    row, column = np.unravel_index(int(picture.argmax()), picture.shape)
    assert picture.max() == 1.0, corner
    assert row < 10, corner
    assert column < 10, corner


def test_pixels_keep_their_proportion() -> None:
    grid = Grid((30, 30, 10), (1.0, 1.0, 5.0), (0.0, 0.0, 0.0))
    assert plane_through(grid, "axial", grid.center).aspect == 1.0
    assert plane_through(grid, "coronal", grid.center).aspect == 5.0


def test_the_window_follows_the_content() -> None:
    lung = np.full((4, 4, 4), -800.0)
    body = np.ones((4, 4, 4), dtype=bool)
    assert display_window(lung, body, "ct") == (-1000.0, 400.0)
    assert display_window(lung + 840, body, "ct") == (-160.0, 240.0)
    low, high = display_window(np.arange(1000.0), body.ravel(), "mr")
    assert 0 < low < high < 1000


def test_red_cyan_is_gray_where_images_agree_and_tiles_alternate() -> None:
    a, b = np.full((4, 4), 0.3), np.full((4, 4), 0.8)
    assert np.ptp(red_cyan(a, a), axis=-1).max() == 0
    assert red_cyan(a, b)[0, 0].tolist() == [0.3, 0.8, 0.8]
    tiles = checkerboard(a, b, (2, 2))
    assert tiles[0, 0] == 0.3
    assert tiles[0, 2] == 0.8
    assert tiles[2, 2] == 0.3
