"""The report: self-contained, honest about what was not measured, upright on any grid."""

from __future__ import annotations

import copy
import re
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from GlideRegLib.field import DisplacementField
from GlideRegLib.geometry import Grid
from GlideRegLib.redaction import with_roles, without_names
from GlideRegLib.report import build_report
from GlideRegLib.report.figures import FOLDED, checkerboard, jacobian_colors, red_cyan
from GlideRegLib.report.planes import (
    LUNG_WINDOW,
    PLANES,
    SOFT_TISSUE_WINDOW,
    direction_letters,
    display_window,
    plane_through,
    tilt_degrees,
)
from GlideRegLib.report.views import Scene, build_scene, jacobian_samples
from GlideRegLib.result import NOTICE, Result
from GlideRegLib.volume import Volume

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
FLIPPED = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, -1.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, -1.0, 0.0)
SAGITTAL = (0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0)


def turned(degrees: tuple[float, float, float], base: tuple[float, ...]) -> tuple[float, ...]:
    """A direction matrix turned about x, y and z."""
    matrix = np.reshape(base, (3, 3))
    for axis, angle in enumerate(np.radians(degrees)):
        turn = np.eye(3)
        a, b = [k for k in range(3) if k != axis]
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return tuple(matrix.ravel().tolist())


DIRECTIONS = {
    "identity": IDENTITY,
    "flipped": FLIPPED,
    "coronal": CORONAL,
    "sagittal": SAGITTAL,
    "oblique": turned((9, -12, 17), IDENTITY),
    "oblique sagittal": turned((-8, 15, 10), SAGITTAL),
}


def wave(points: np.ndarray) -> np.ndarray:
    """A smooth image in HU at LPS points (..., 3)."""
    x, y, z = np.moveaxis(points, -1, 0)
    return 600 * np.sin(x / 10) * np.cos(y / 12) * np.sin(z / 12) - 400


def image_on(grid: Grid, shift: tuple[float, float, float] = (0, 0, 0)) -> Volume:
    """The smooth image on a grid, moved by ``shift`` mm."""
    z, y, x = np.indices(grid.shape, dtype=float)
    points = grid.to_physical(np.stack([x, y, z], axis=-1).reshape(-1, 3)) - np.array(shift)
    return Volume(wave(points).reshape(grid.shape).astype(np.float32), grid)


def make_result(grid: Grid, modality: str = "ct", amplitude: float = 1.0) -> Result:
    """A small result with a smooth field, without landmarks or labels."""
    x, y, z = grid.index_tensor().double()
    bump = torch.sin(x / 5) * torch.cos(y / 6) * torch.sin(z / 4)
    vectors = amplitude * torch.stack((2 * bump, bump, -bump)).float()
    body = np.ones(grid.shape, dtype=bool)
    field = DisplacementField(vectors, grid).with_zero_border(grid)
    result = Result(field, np.eye(4), grid, body, modality, -1024.0)
    result.report.update(
        modality=modality,
        quality=result.field_quality(),
        encoder={"name": "none", "weights_sha256": None, "trained": False},
        messages=["warning: <script>alert('x')</script>", "info: Initial alignment: none."],
    )
    return result


def shifted_result(grid: Grid, shift: tuple[float, float, float], modality: str = "ct") -> Result:
    """The exact result of a moving image that is ``image_on(..., shift)``."""
    initial = np.eye(4)
    initial[:3, 3] = shift
    body = np.ones(grid.shape, dtype=bool)
    return Result(DisplacementField.zeros(grid), initial, grid, body, modality, -1024.0)


@pytest.fixture(scope="module")
def grid() -> Grid:
    return Grid((24, 20, 16), (2.0, 2.0, 3.0), (5.0, -4.0, 30.0))


@pytest.fixture(scope="module")
def plain(grid: Grid) -> str:
    """A report without landmarks, labels, cost or provenance."""
    return build_report(make_result(grid), image_on(grid), image_on(grid, (3, 0, 0)))


def _points(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    points = grid.to_physical(np.random.default_rng(0).uniform(2, 12, (9, 3)))
    return points, points + 1.0


@pytest.fixture(scope="module")
def full(grid: Grid) -> tuple[Result, str]:
    """A report with everything, hostile and revealing texts among it."""
    result, fixed = make_result(grid), image_on(grid)
    points, carried = _points(grid)
    labels = Volume((fixed.array > -400).astype(np.uint8), grid)
    result.report["quality"].update(result.landmark_quality(points, carried))
    result.report["quality"].update(result.label_quality(labels, labels))
    entry = result.report["quality"]["labels"]["1"]
    result.report["quality"]["labels"]["<script>evil</script>"] = entry
    result.report["cost"] = {
        "seconds": {"total": 41.26, "align": 3.2, "refine": 38.06},
        "peak_memory_mb": 812.4,
    }
    result.report["messages"] += [
        "info: 'Roewe^Jane 1970.fcsv' states no frame; it is read as RAS mm, as Slicer does.",
        "warning: /home/jane/scans/roewe.pt is damaged and was not used.",
        r"info: Read C:\scans\roewe.nii.gz and https://example.org/roewe.pt.",
    ]
    result.report["provenance"] = {
        "versions": {"glidereg": "0.1.0"},
        "settings": {"preset_name": "fast", "features": {"weights": "/home/jane/roewe.pt"}},
        "inputs": {"fixed": {"sha256": "ab12", "geometry": grid.to_dict(), "notes": ["roewe.dcm"]}},
    }
    html = build_report(
        result,
        fixed,
        image_on(grid, (3, 0, 0)),
        errors=result.landmark_errors(points, carried),
        labels=(labels, labels),
    )
    return result, html


def without_pictures(html: str) -> str:
    return re.sub(r'src="data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+"', "", html)


# --- the page ---------------------------------------------------------------------------------


def test_the_report_loads_nothing(plain: str, full: tuple[Result, str]) -> None:
    for html in (plain, full[1]):
        bare = without_pictures(html)
        for word in ("src=", "href=", "http", "url(", "@import", "<script", "<link"):
            assert word not in bare, word
        assert len(html) < 4e6


def test_research_use_only_stands_at_the_top_and_at_the_bottom(plain: str) -> None:
    assert plain.count(NOTICE) == 2
    text = without_pictures(plain)
    assert text.index(NOTICE) < text.index('class="card"')
    assert text.rindex(NOTICE) > text.index("<footer>")


def test_no_name_of_a_file_or_patient_is_told(full: tuple[Result, str]) -> None:
    text = without_pictures(full[1])
    for name in ("roewe", "Roewe", "jane", "Jane", "home/", "scans", "example.org"):
        assert name not in text, name
    assert "(file) states no frame" in text
    assert "(file) is damaged and was not used." in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Reading '/a b/Jane Doe.nii.gz' failed.", "Reading (file) failed."),
        ("See ../x/y.h5 or ~/z.", "See (file) or (file)"),
        (r"\\server\share\roewe", "(file)"),
        ("Fetching sam2.1_hiera_tiny.pt (148 MB).", "Fetching (file) (148 MB)."),
        ("Encoder: SAM 2.1 tiny, weights 0123abcd.", "Encoder: SAM 2.1 tiny, weights 0123abcd."),
        ("2.13.0+cpu, 1.5 mm, 1/2, fixed/moving", "2.13.0+cpu, 1.5 mm, 1/2, fixed/moving"),
        ("info: the user's choice isn't used", "info: the user's choice isn't used"),
        (
            "'/x/Roe.doc': use .mrk.json, .csv or '.nii.gz'",
            "(file): use .mrk.json, .csv or '.nii.gz'",
        ),
        ("Roe.nii.gz and .roe.nii.gz", "(file) and (file)"),
    ],
)
def test_redaction(text: str, expected: str) -> None:
    assert without_names(text) == expected


def test_files_are_told_by_what_they_are_for() -> None:
    files = {"fixed image": Path("/s/Roe"), "fixed landmarks": Path("/s/Roe/p.doc")}
    text = "'/s/Roe/p.doc' is odd, '/s/Roe/1.dcm' too, /s/Roe is not, /s/Roe.nii is another."
    expected = (
        "(fixed landmarks) is odd, (fixed image) too, (fixed image) is not, (file) is another."
    )
    assert without_names(with_roles(text, files)) == expected


def test_hostile_text_is_escaped(plain: str, full: tuple[Result, str]) -> None:
    assert "&lt;script&gt;alert(" in plain
    assert "&lt;script&gt;evil&lt;/script&gt;" in full[1]
    assert "<script" not in plain + full[1]


def test_what_was_not_measured_is_called_so(plain: str) -> None:
    text = without_pictures(plain)
    for title in ("Landmark error (TRE)", "Overlap (Dice)", "Time"):
        assert re.search(re.escape(title) + r"</span>\s*<b class=\"quiet\">not measured</b>", text)
    assert "peak memory not measured" in text
    assert "The landmark error was not measured" in text
    assert "The overlap of structures was not measured" in text
    assert not re.search(r"\b(good|excellent|successful|nan|None)\b", text)


def test_nothing_at_all_in_the_report_still_makes_a_page(grid: Grid) -> None:
    result = make_result(grid)
    result.report.clear()
    text = without_pictures(build_report(result, image_on(grid), image_on(grid)))
    assert text.count("not measured") >= 8
    assert "not recorded" in text


def test_numbers_are_those_of_the_result(full: tuple[Result, str]) -> None:
    result, html = full
    text, quality = without_pictures(html), result.report["quality"]
    before, after = (quality["tre_mm"][k] for k in ("before", "after"))
    assert f"{before['mean']:.2f} → {after['mean']:.2f} mm" in text
    for key in ("median", "p95", "max"):
        assert f"<td>{after[key]:.2f}</td>" in text
    assert f"{after['ci95'][0]:.2f} to {after['ci95'][1]:.2f}" in text
    dice = quality["mean_dice"]
    assert f"{dice['before']:.3f} → {dice['after']:.3f}" in text
    assert f"<td>{quality['labels']['1']['after']['hd95_mm']:.2f}</td>" in text
    assert f"{quality['folding_percent']['body']:.4f} %" in text
    assert "<b>41 s</b>" in text
    assert "peak memory 812 MB" in text
    errors = result.landmark_errors(*_points(result.fixed_grid))
    worse = int((errors["after"] > errors["before"]).sum())
    assert worse > 0
    assert f"larger error after than before: {worse}." in text
    assert "refinement" in text
    assert "38.1 s" in text


def test_what_became_worse_is_marked(grid: Grid, plain: str, full: tuple[Result, str]) -> None:
    assert 'class="caution">larger than before' not in plain
    result = full[0]
    quality = copy.deepcopy(result.report["quality"])
    quality["tre_mm"]["after"]["mean"] = quality["tre_mm"]["before"]["mean"] + 1
    quality["labels"]["1"]["before"]["dice"] = 1.0
    quality["labels"]["1"]["after"]["dice"] = 0.4
    quality["mean_dice"] = {"before": 1.0, "after": 0.4}
    encoder = {"name": "mobile_sam", "weights_sha256": None, "trained": False}
    worse = replace(result, report={**result.report, "quality": quality, "encoder": encoder})
    text = without_pictures(build_report(worse, image_on(grid), image_on(grid)))
    assert "larger than before" in text
    assert "smaller than before" in text
    assert "(Dice fell)" in text
    assert "random weights, not trained" in text


def test_size_stays_small_for_large_noisy_images() -> None:
    grid = Grid((180, 180, 120), (2.0, 2.0, 3.0), (0.0, 0.0, 0.0))
    noise = np.random.default_rng(0).normal(0, 500, (2, *grid.shape)).astype(np.float32)
    html = build_report(shifted_result(grid, (0, 0, 0)), *(Volume(v, grid) for v in noise))
    assert len(html) < 4e6


def test_any_thread_can_build_it_and_pyplot_stays_out(grid: Grid, plain: str) -> None:
    had = "matplotlib.pyplot" in sys.modules
    made: list[str] = []

    def work() -> None:
        made.append(build_report(make_result(grid), image_on(grid), image_on(grid, (3, 0, 0))))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert made == [plain]  # and the same page every time
    assert ("matplotlib.pyplot" in sys.modules) == had


# --- planes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS.keys())
@pytest.mark.parametrize(
    ("name", "offset"),
    [("axial", (-1, -1, 0)), ("coronal", (-1, 0, 1)), ("sagittal", (0, -1, 1))],
    ids=["right anterior", "right superior", "anterior superior"],
)
def test_pictures_are_upright_on_any_grid(
    direction: tuple[float, ...], name: str, offset: tuple[int, int, int]
) -> None:
    grid = Grid((23, 21, 25), (2.0, 2.2, 1.8), (3.0, 4.0, 5.0), direction)
    array = np.zeros(grid.shape, np.float32)
    mark = grid.center + 12.0 * np.array(offset, dtype=float)
    index = np.round(grid.to_index(mark[None])[0]).astype(int)
    array[tuple(index[::-1])] = 1.0
    plane = plane_through(grid, name, mark)
    picture = plane.cut(array)
    row, column = np.unravel_index(int(picture.argmax()), picture.shape)
    assert picture.max() == 1.0
    assert row < picture.shape[0] // 2 - 2
    assert column < picture.shape[1] // 2 - 2
    # The plane says itself where its pixels lie, and that agrees with the volume.
    assert np.allclose(plane.points()[row, column], grid.to_physical(index[None])[0])
    steps = plane.points()[[0, 1], [1, 0]] - plane.points()[0, 0]
    assert np.allclose(steps[0], np.array(plane.right) * plane.pixel_mm[0])
    assert np.allclose(steps[1], np.array(plane.down) * plane.pixel_mm[1])
    letters = {"axial": "RLAP", "coronal": "RLSI", "sagittal": "APSI"}[name]
    assert "".join(text[0] for text in plane.letters) == letters


@pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS.keys())
def test_views_show_the_marker_at_the_upper_left(direction: tuple[float, ...]) -> None:
    """A voxel at the patient's right, front and top, through the whole path to the display."""
    grid = Grid((24, 24, 24), (3.0, 3.0, 3.0), (-30.0, -30.0, -30.0), direction)
    array = np.full(grid.shape, -1000.0, np.float32)
    x, y, z = np.round(grid.to_index(grid.center[None] + np.array([-15, -15, 15]))[0]).astype(int)
    array[z - 1 : z + 2, y - 1 : y + 2, x - 1 : x + 2] = 400.0
    empty = Volume(np.full(grid.shape, -1000.0, np.float32), grid)
    # The only difference lies at the marker: that is where the planes are cut.
    scene = build_scene(shifted_result(grid, (0, 0, 0)), Volume(array, grid), empty)
    for view in scene.views:
        row, column = (int(np.mean(k)) for k in np.nonzero(view.fixed > 0.5))
        assert row < view.fixed.shape[0] // 2, view.plane.name
        assert column < view.fixed.shape[1] // 2, view.plane.name


def test_letters_of_leaning_axes() -> None:
    assert direction_letters(np.array([1.0, 0.1, 0.0])) == "L"
    assert direction_letters(np.array([-0.8, -0.6, 0.0])) == "RA"
    assert tilt_degrees(Grid((9, 9, 9), (1.0,) * 3, (0.0,) * 3, FLIPPED)) == pytest.approx(0)
    tilted = Grid((9, 9, 9), (1.0,) * 3, (0.0,) * 3, turned((0, 0, 20), SAGITTAL))
    assert tilt_degrees(tilted) == pytest.approx(20)


def test_pixels_keep_their_proportion() -> None:
    grid = Grid((30, 30, 10), (1.0, 1.0, 5.0), (0.0, 0.0, 0.0))
    assert plane_through(grid, "axial", grid.center).aspect == 1.0
    assert plane_through(grid, "coronal", grid.center).aspect == 5.0


@pytest.mark.parametrize("direction", [IDENTITY, SAGITTAL, DIRECTIONS["oblique"]])
def test_jacobians_of_planes_and_samples_are_those_of_the_whole_map(
    direction: tuple[float, ...],
) -> None:
    grid = Grid((20, 18, 16), (2.0, 2.0, 3.0), (5.0, -4.0, 30.0), direction)
    result = make_result(grid)
    whole = result.jacobian().array
    scene = build_scene(result, image_on(grid), image_on(grid, (2, 0, 0)))
    for view in scene.views:
        assert np.allclose(view.jacobian, view.plane.cut(whole), atol=1e-4)
    samples = jacobian_samples(result)
    assert samples.size == 12 * 20 * 18
    assert np.isin(np.round(samples, 3), np.round(whole, 3)).mean() > 0.99


# --- what the pictures show -------------------------------------------------------------------


def test_an_exact_transform_brings_the_images_together(grid: Grid) -> None:
    shift = (4.0, -3.0, 2.0)
    result, fixed, moving = shifted_result(grid, shift), image_on(grid), image_on(grid, shift)
    for warped in (None, result.warp(moving)):
        scene = build_scene(result, fixed, moving, warped)
        for view in scene.views:
            inside = view.inside_after
            assert 0.5 < inside.mean() < 1
            assert view.difference_after[inside].mean() < 15
            assert view.difference_before[view.inside_before].mean() > 60
            assert np.abs(view.fixed - view.after)[inside].max() < 0.05


def test_both_ways_to_the_warped_image_agree(grid: Grid) -> None:
    result, fixed, moving = make_result(grid), image_on(grid), image_on(grid, (3, 0, 0))
    own = build_scene(result, fixed, moving)
    given = build_scene(result, fixed, moving, result.warp(moving))
    for first, second in zip(own.views, given.views, strict=True):
        close = np.abs(first.after - second.after) < 0.01
        assert close[first.inside_after].mean() > 0.99


def test_fields_of_view_may_differ(grid: Grid) -> None:
    small = Grid((10, 9, 8), (2.0, 2.0, 3.0), (20.0, 8.0, 40.0))
    result = shifted_result(grid, (0.0, 0.0, 0.0))
    scene = build_scene(result, image_on(grid), image_on(small))
    for view in scene.views:
        # The planes go through what the moving image shows.
        assert 0.05 < view.inside_after.mean() < 0.6
    assert scene.overlap
    html = build_report(result, image_on(grid), image_on(small))
    assert "the moving image has no data there" in html


def test_images_that_did_not_overlap_before_are_shown(grid: Grid) -> None:
    away = Grid(grid.size, grid.spacing, (505.0, -4.0, 30.0))
    result = shifted_result(grid, (500.0, 0.0, 0.0))
    moving = Volume(image_on(grid).array, away)
    scene = build_scene(result, image_on(grid), moving)
    assert not scene.overlap
    assert np.abs(scene.point - grid.center).max() < 6
    assert all(view.difference_after.max() < 1e-2 for view in scene.views)
    assert "did not overlap before" in build_report(result, image_on(grid), moving)


def test_mr_pairs_are_scaled_each_by_its_own(grid: Grid) -> None:
    fixed = image_on(grid)
    positive = Volume(fixed.array - fixed.array.min(), grid)
    brighter = Volume(3 * positive.array + 50, grid)
    result = shifted_result(grid, (0, 0, 0), "mr")
    scene = build_scene(result, positive, brighter)
    assert scene.moving_window[1] > 2 * scene.window[1]
    assert all(view.difference_after.max() < 1 for view in scene.views)
    assert "%" in scene.unit
    assert "HU" not in without_pictures(build_report(result, positive, brighter))


def test_the_window_follows_the_content() -> None:
    body = np.ones((4, 4, 4), dtype=bool)
    lung = np.full((4, 4, 4), -800.0)
    assert display_window(lung, body, "ct") == LUNG_WINDOW
    assert display_window(lung + 840, body, "ct") == SOFT_TISSUE_WINDOW
    # Air around the body does not make a lung.
    body[2:] = False
    lung[:2] = 40
    assert display_window(lung, body, "ct") == SOFT_TISSUE_WINDOW
    low, high = display_window(np.arange(1000.0), np.ones(1000, dtype=bool), "mr")
    assert 0 < low < high < 1000


def test_folded_voxels_are_marked_and_announced(grid: Grid, plain: str) -> None:
    result = make_result(grid, amplitude=6.0)
    assert result.report["quality"]["folding_percent"]["body"] > 0
    scene: Scene = build_scene(result, image_on(grid), image_on(grid))
    colors = ScalarMappable(Normalize(-2, 2), "PuOr_r")
    count = 0
    for view in scene.views:
        marked = np.all(jacobian_colors(view, colors) == FOLDED, axis=-1)
        assert np.array_equal(marked, view.jacobian <= 0)
        count += int(marked.sum())
    assert count > 0
    assert "There are some in these planes." in build_report(result, image_on(grid), image_on(grid))
    assert "There is none in these planes." in plain


def test_red_cyan_is_gray_where_images_agree_and_tiles_alternate() -> None:
    a, b = np.full((4, 4), 0.3), np.full((4, 4), 0.8)
    assert np.ptp(red_cyan(a, a), axis=-1).max() == 0
    assert red_cyan(a, b)[0, 0].tolist() == [0.3, 0.8, 0.8]
    tiles = checkerboard(a, b, (2, 2))
    assert tiles[0, 0] == 0.3
    assert tiles[0, 2] == 0.8
    assert tiles[2, 2] == 0.3


def test_there_are_three_planes_in_radiological_order() -> None:
    assert PLANES == ("axial", "coronal", "sagittal")
