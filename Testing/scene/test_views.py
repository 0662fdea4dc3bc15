"""What Slicer draws of a scene: volumes, blends, deformation grids and landmarks, as pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk

from slicer_harness.scene import SceneHarness, fresh_scene
from slicer_harness.views import SliceView, ThreeDView, check_rendering, montage, save_png

#: Where the bright block of the small volume lies: patient's left, anterior, superior (RAS mm).
LEFT_FRONT_TOP = (-36.0, 32.0, 12.0)
MODES = ("GRID", "GLYPH", "CONTOUR")


def _add_volume(array: np.ndarray, name: str, window: float, level: float) -> object:
    """A 2 mm volume that spans -64 to 64 mm along R, A and S."""
    ijk_to_ras = np.diag([2.0, 2.0, 2.0, 1.0])
    ijk_to_ras[:3, 3] = -63.0
    volume = slicer.util.addVolumeFromArray(array, ijk_to_ras, name=name)
    display = volume.GetDisplayNode()
    display.SetAutoWindowLevel(False)
    display.SetWindowLevel(window, level)
    return volume


def _block_volume() -> object:
    array = np.zeros((64, 64, 64), np.int16)
    array[26:50, 40:56, 8:20] = 100  # k, j, i: superior, anterior, left
    return _add_volume(array, "block", 100, 50)


def _grid_from_parent(field: np.ndarray, spacing: float, origin: float) -> object:
    """A grid transform whose from-parent direction is the field: (Z, Y, X, 3) RAS mm."""
    image = vtk.vtkImageData()
    image.SetDimensions(*field.shape[2::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(field.reshape(-1, 3), deep=True))
    image.SetSpacing(spacing, spacing, spacing)
    image.SetOrigin(origin, origin, origin)
    transform = slicer.vtkOrientedGridTransform()
    transform.SetDisplacementGridData(image)
    transform.SetInterpolationModeToLinear()
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLGridTransformNode", "deformation")
    node.SetAndObserveTransformFromParent(transform)
    return node


def _wavy_transform() -> object:
    """Smooth waves of up to 8 mm that end in zero at the border."""
    z, y, x = np.meshgrid(*[np.linspace(0, np.pi, 33)] * 3, indexing="ij")
    envelope = np.sin(z) * np.sin(y) * np.sin(x)
    parts = [8 * np.sin(2 * y), 8 * np.sin(2 * x), 2 * np.ones_like(x)]
    return _grid_from_parent(np.stack([envelope * part for part in parts], -1), 4.0, -64.0)


def _pushing_transform(millimeters: float) -> object:
    """A push along R, the same everywhere but near the border, where it fades to zero."""
    distance = 64 - np.abs(np.linspace(-64, 64, 33))
    fade = np.clip(distance / 24, 0, 1)
    z, y, x = np.meshgrid(fade, fade, fade, indexing="ij")
    push = millimeters * z * y * x
    return _grid_from_parent(np.stack([push, 0 * push, 0 * push], -1), 4.0, -64.0)


def _display(transform: object, region: object, mode: str) -> object:
    """The transform's display node, in one of Slicer's three modes, visible in 2-D and 3-D."""
    transform.CreateDefaultDisplayNodes()
    display = transform.GetDisplayNode()
    before = display.StartModify()
    display.SetAndObserveRegionNode(region)
    display.SetVisualizationMode(getattr(display, f"VIS_MODE_{mode}"))
    display.SetSliceIntersectionThickness(2)
    display.SetGridSpacingMm(16)
    display.SetGridResolutionMm(4)
    display.SetGlyphDiameterMm(2)
    display.SetVisibility2D(True)
    display.SetVisibility3D(True)
    display.SetVisibility(True)
    display.EndModify(before)
    return display


def _add_landmarks(points: list[tuple[float, float, float]]) -> object:
    markups = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "L")
    markups.CreateDefaultDisplayNodes()
    for index, point in enumerate(points):
        markups.AddControlPoint(*point, f"L-{index + 1}")
    return markups


def _colored(picture: np.ndarray) -> np.ndarray:
    """True where a pixel is clearly not gray."""
    return np.ptp(picture.astype(int), axis=-1) > 60


def _colored_near(picture: np.ndarray, pixel: tuple[int, int], reach: int = 4) -> bool:
    row, column = pixel
    part = picture[row - reach : row + reach + 1, column - reach : column + reach + 1]
    return bool(_colored(part).any())


def test_this_machine_can_draw() -> None:
    assert check_rendering() is None


def test_without_a_gl_library_the_check_names_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("__EGL_VENDOR_LIBRARY_FILENAMES", "/nonexistent")
    assert "libegl1 libgl1-mesa-dri" in (check_rendering() or "")


@pytest.mark.parametrize(
    "name",
    ["Red", "Yellow", "Green"],
)
def test_a_bright_block_appears_where_it_lies(
    scene: SceneHarness, pictures: Path, name: str
) -> None:
    volume = _block_volume()
    view = SliceView(scene, name).show(volume).fit().jump(LEFT_FRONT_TOP)
    picture = view.render(pictures / f"block_{name}.png")
    rows, columns = np.nonzero(picture[..., 0] > 200)
    assert picture.shape == (400, 400, 3)
    assert abs(np.mean(rows) - view.pixel(LEFT_FRONT_TOP)[0]) < 2
    assert abs(np.mean(columns) - view.pixel(LEFT_FRONT_TOP)[1]) < 2
    assert np.mean(rows) < 170  # the block is anterior and superior: up in all three views
    seen_on_the_left = name == "Yellow"  # anterior is left there; else patient's left is right
    assert (np.mean(columns) < 150) == seen_on_the_left
    assert (np.mean(columns) > 250) != seen_on_the_left


def test_the_foreground_blends_over_the_background(scene: SceneHarness, pictures: Path) -> None:
    dark = _add_volume(np.full((64, 64, 64), 20, np.int16), "dark", 100, 50)
    bright = _add_volume(np.full((64, 64, 64), 80, np.int16), "bright", 100, 50)
    view = SliceView(scene, "Red").show(dark, bright).fit()
    shots = [view.show(foregroundOpacity=opacity).render() for opacity in (0.0, 0.5, 1.0)]
    save_png(montage(shots, 3), pictures / "blend.png")
    levels = [int(shot[200, 200, 0]) for shot in shots]
    assert levels == pytest.approx([0.2 * 255, 0.5 * 255, 0.8 * 255], abs=2)


@pytest.mark.parametrize("mode", MODES)
def test_a_deformation_shows_in_the_slice_view_and_in_3d(
    scene: SceneHarness, pictures: Path, mode: str
) -> None:
    volume = _block_volume()
    view = SliceView(scene, "Red").show(volume).fit()
    space = ThreeDView(scene)
    view.node.SetSliceVisible(True)
    display = _display(_wavy_transform(), volume, mode)
    flat, solid = view.render(), space.look_from("anterior").turn(30, 20).render()
    save_png(montage([flat, solid], 2), pictures / f"deformation_{mode.lower()}.png")
    display.SetVisibility(False)
    plain_flat, plain_solid = view.render(), space.render()
    assert not _colored(plain_flat).any()
    assert _colored(flat).mean() > 0.005
    assert (np.abs(solid.astype(int) - plain_solid).max(axis=-1) > 60).mean() > 0.02


def test_the_grid_shows_where_content_goes_not_where_it_is_sampled(
    scene: SceneHarness, pictures: Path
) -> None:
    volume = _block_volume()
    view = SliceView(scene, "Red").show(volume).fit()
    _display(_pushing_transform(12.0), volume, "GRID")
    picture = view.render(pictures / "push.png")
    between = 8.0  # halfway between two horizontal lines
    assert not _colored_near(picture, view.pixel((0.0, between, 0.0)))
    assert _colored_near(picture, view.pixel((-12.0, between, 0.0)))  # the line that was at 0
    assert _colored_near(picture, view.pixel((4.0, between, 0.0)))  # the line that was at 16


def test_landmarks_show_on_their_slice_and_in_3d(scene: SceneHarness, pictures: Path) -> None:
    volume = _block_volume()
    view = SliceView(scene, "Red").show(volume).fit()
    space = ThreeDView(scene)
    points = [(-36.0, 32.0, 0.0), (30.0, -30.0, 0.0), (30.0, 30.0, 40.0)]
    _add_landmarks(points)
    flat = view.jump((0.0, 0.0, 0.0)).render()
    solid = space.look_from("anterior").render()
    save_png(montage([flat, solid], 2), pictures / "landmarks.png")
    assert [_colored_near(flat, view.pixel(point)) for point in points] == [True, True, False]
    reddish = (solid[..., 0].astype(int) - solid[..., 2]) > 60
    assert reddish[:, :200].any() and reddish[:, 200:].any()  # patient's right and left


def test_a_picture_is_the_same_every_time(pictures: Path) -> None:
    def draw() -> list[np.ndarray]:
        harness = fresh_scene()
        volume = _block_volume()
        view, space = SliceView(harness, "Green").show(volume).fit(), ThreeDView(harness)
        view.node.SetSliceVisible(True)
        _add_landmarks([LEFT_FRONT_TOP])
        _display(_wavy_transform(), volume, "GRID")
        space.look_from("anterior")
        shots = [view.render(), view.render(), space.render(), space.render()]
        harness.close()
        return shots

    first, second = draw(), draw()
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert np.array_equal(first[0], first[1]) and np.array_equal(first[2], first[3])


def test_a_real_pair_shows_with_its_landmarks(
    scene: SceneHarness, pictures: Path, shared_data: Path
) -> None:
    folder = shared_data / "lung_followup"
    volumes = []
    for name in ("followup", "baseline"):
        path = str(folder / f"{name}.mha")
        volume = scene.logics["Volumes"].AddArchetypeVolume(path, name)
        volume.GetDisplayNode().SetAutoWindowLevel(False)
        volume.GetDisplayNode().SetWindowLevel(1400, -500)
        volumes.append(volume)
    points = np.loadtxt(folder / "followup_points51.txt", skiprows=2) * (-1, -1, 1)
    markups = _add_landmarks([tuple(point) for point in points])
    markups.GetDisplayNode().SetPointLabelsVisibility(False)
    markups.GetDisplayNode().SetGlyphScale(2)
    view = SliceView(scene, "Green", (300, 500)).show(volumes[0], volumes[1], 0.0).fit()
    view.jump(points[20])
    space = ThreeDView(scene, (500, 500))
    view.node.SetSliceVisible(True)
    shots = [view.render(), view.show(foregroundOpacity=0.5).render()]
    shots.append(space.look_from("anterior").turn(20, 10).render())
    save_png(montage(shots, 3), pictures / "real_pair.png")
    assert _colored_near(shots[0], view.pixel(points[20]))
    assert shots[0].std() > 50 and not np.array_equal(shots[0], shots[1])
