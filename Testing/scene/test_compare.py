"""Every way to compare two volumes: the pixels that Slicer's own slice logic draws of it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import slicer
from known_fields import linear_node, turn_and_shift

from GlideRegLib.errors import InputError
from GlideRegScene import display
from GlideRegScene.compare.comparison import Comparison
from GlideRegScene.compare.modes import Mode, Options, opacityAt
from slicer_harness.scene import SceneHarness
from slicer_harness.views import SliceView

SIZE = (160, 120)
#: Gray values of the two plain volumes on the screen, at a window of 0 to 100.
DARK, BRIGHT = 51, 204


def plain(value: float, name: str, spacing: float = 8.0, window: tuple = (100, 50)) -> object:
    """A volume of one value around the origin, 128 mm wide."""
    count = round(128 / spacing)
    matrix = np.diag([spacing, spacing, spacing, 1.0])
    matrix[:3, 3] = -64 + spacing / 2
    array = np.full((count, count, count), value, np.int16)
    node = slicer.util.addVolumeFromArray(array, matrix, name=name)
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().SetAutoWindowLevel(False)
    node.GetDisplayNode().SetWindowLevel(*window)
    return node


@pytest.fixture
def view(scene: SceneHarness, can_render: None, monkeypatch) -> Iterator[SliceView]:
    """The axial view, one pixel to 0.5 mm, its middle at the origin."""
    monkeypatch.setattr(slicer.app, "application_logic", scene.application)
    drawn = SliceView(scene, "Red", size=SIZE)
    drawn.node.SetFieldOfView(SIZE[0] / 2, SIZE[1] / 2, 1.0)
    yield drawn


@pytest.fixture
def comparison(scene: SceneHarness) -> Comparison:
    return Comparison(scene.scene)


@pytest.fixture
def pair(scene: SceneHarness) -> tuple:
    return plain(20, "dark"), plain(80, "bright", spacing=4.0)


def gray(view: SliceView) -> np.ndarray:
    return view.render()[..., 0].astype(int)


def test_tiles_alternate_at_their_size_and_hang_on_the_patient(view, comparison, pair) -> None:
    comparison.start(*pair, Mode.CHECKERBOARD, Options(tileMm=10.0))
    picture = gray(view)
    assert set(np.unique(picture)) == {DARK, BRIGHT}
    for right in (-12.0, -2.0, 3.0, 18.0):
        for front in (-17.0, -8.0, 2.0, 13.0):
            here = picture[view.pixel((right, front, 0.0))]
            for neighbor in ((right + 10, front, 0.0), (right, front + 10, 0.0)):
                assert picture[view.pixel(neighbor)] != here
            assert picture[view.pixel((right + 10, front + 10, 0.0))] == here
    at = picture[view.pixel((3.0, 3.0, 0.0))]
    view.node.JumpSliceByCentering(4.0, -6.0, 0.0)  # the tiles move with the patient
    assert gray(view)[view.pixel((3.0, 3.0, 0.0))] == at
    view.jump((0.0, 0.0, 15.0))  # and stay when the view is scrolled
    assert gray(view)[view.pixel((3.0, 3.0, 15.0))] == at


def test_the_tile_size_changes_live_and_swapping_turns_the_tiles_over(
    view, comparison, pair
) -> None:
    comparison.start(*pair, Mode.CHECKERBOARD, Options(tileMm=10.0))
    first = gray(view)
    comparison.set(Options(tileMm=10.0, swapped=True))
    assert np.array_equal(gray(view), DARK + BRIGHT - first)
    comparison.set(Options(tileMm=20.0))
    columns = (np.diff(gray(view)[5]) != 0).nonzero()[0]
    assert np.all(np.diff(columns) == 40)  # 20 mm at 0.5 mm


@pytest.mark.parametrize("share", [0.25, 0.5, 0.8])
def test_the_line_lies_where_it_was_put(view, comparison, pair, share) -> None:
    comparison.start(*pair, Mode.SPLIT, Options(split=share))
    picture = view.render().astype(int)
    edge = round(share * SIZE[0])
    assert np.all(picture[:, : edge - 2, 0] == DARK) and np.all(picture[:, edge + 2 :, 0] == BRIGHT)
    line = picture[:, edge - 2 : edge + 2]
    assert np.ptp(line, axis=-1).max() > 60  # the line itself has a color
    comparison.set(Options(split=share, horizontal=True))
    picture, edge = gray(view), round(share * SIZE[1])
    assert np.all(picture[: edge - 2] == DARK) and np.all(picture[edge + 2 :] == BRIGHT)


def test_the_line_goes_through_one_place_of_the_patient_in_all_views(
    view, comparison, pair, scene
) -> None:
    other = SliceView(scene, "Yellow", size=SIZE)
    other.node.SetFieldOfView(80, 60, 1.0)
    place = (12.0, -8.0, 0.0)
    comparison.start(*pair, Mode.SPLIT, Options(through=place))
    for each in (view, other):
        row, column = each.pixel(place)
        picture = gray(each)
        assert picture[row, column - 3] == DARK and picture[row, column + 3] == BRIGHT
    view.node.JumpSliceByCentering(6.0, 0.0, 0.0)
    row, column = view.pixel(place)
    assert gray(view)[row, column - 3] == DARK and gray(view)[row, column + 3] == BRIGHT


def test_fading_is_the_opacity_of_the_second(view, comparison, pair) -> None:
    for opacity in (0.0, 0.3, 1.0):
        comparison.start(*pair, Mode.FADE, Options(opacity=opacity))
        assert gray(view)[60, 80] == pytest.approx(DARK + opacity * (BRIGHT - DARK), abs=1)
    comparison.start(*pair, Mode.ROCK)
    comparison.setOpacity(0.25)
    assert gray(view)[60, 80] == pytest.approx(DARK + 0.25 * (BRIGHT - DARK), abs=1)


def test_rocking_is_gentle_and_flickering_sudden() -> None:
    rock = [opacityAt(Mode.ROCK, t, 2.0) for t in (0.0, 0.5, 1.0, 1.5, 2.0, 5.0)]
    assert rock == pytest.approx([0.0, 0.5, 1.0, 0.5, 0.0, 1.0])
    flicker = [opacityAt(Mode.FLICKER, t, 2.0) for t in (0.0, 0.9, 1.1, 1.9, 2.1)]
    assert flicker == [0.0, 0.0, 1.0, 1.0, 0.0]


def test_red_is_the_first_and_cyan_the_second_each_in_its_own_window(view, comparison) -> None:
    first, second = plain(20, "first"), plain(800, "second", window=(1000, 500))
    comparison.start(first, second, Mode.RED_CYAN)
    assert view.render()[60, 80].tolist() == pytest.approx([DARK, BRIGHT, BRIGHT], abs=1)
    first.GetDisplayNode().SetWindowLevel(50, 25)  # followed
    assert view.render()[60, 80].tolist() == pytest.approx([102, BRIGHT, BRIGHT], abs=1)
    comparison.set(Options(swapped=True))
    assert view.render()[60, 80].tolist() == pytest.approx([BRIGHT, 102, 102], abs=1)


def ramps() -> tuple[object, object]:
    """Values that grow along each axis by another step; the second one half as fine."""
    nodes = []
    for name, spacing in (("fine", 4.0), ("coarse", 8.0)):
        node = plain(0, name, spacing)
        count = round(128 / spacing)
        place = -64 + spacing / 2 + spacing * np.arange(count)
        k, j, i = np.meshgrid(place, place, place, indexing="ij")
        values = 2 * i + 3 * j + 5 * k if name == "fine" else 7 * i - 2 * j + 4 * k
        slicer.util.updateVolumeFromArray(node, values.astype(np.int16))
        nodes.append(node)
    return nodes[0], nodes[1]


def computedValue(view: SliceView, ras: tuple) -> float:
    """What the foreground of a view holds at a world position."""
    node = slicer.mrmlScene.GetNodeByID(view.composite.GetForegroundVolumeID())
    rasToIjk = np.linalg.inv(slicer.util.arrayFromVTKMatrix(_ijkToRas(node)))
    i, j, k = np.round((rasToIjk @ [*ras, 1.0])[:3]).astype(int)
    return float(slicer.util.arrayFromVolume(node)[k, j, i])


def _ijkToRas(node: object) -> object:
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return matrix


def test_the_difference_is_first_minus_second_in_every_view_and_follows_the_view(
    view, comparison, scene
) -> None:
    sagittal = SliceView(scene, "Yellow", size=SIZE)
    sagittal.node.SetFieldOfView(80, 60, 1.0)
    comparison.start(*ramps(), Mode.DIFFERENCE)

    def expected(right: float, front: float, up: float) -> float:
        return (2 - 7) * right + (3 + 2) * front + (5 - 4) * up

    for place in ((10.0, 5.0, 0.0), (-20.0, 8.0, 0.0)):
        assert computedValue(view, place) == pytest.approx(expected(*place), abs=5)
    place = (0.0, 14.0, -11.0)
    assert computedValue(sagittal, place) == pytest.approx(expected(*place), abs=5)
    view.jump((0.0, 0.0, 24.0))
    place = (6.0, -9.0, 24.0)
    assert computedValue(view, place) == pytest.approx(expected(*place), abs=5)


def test_colors_of_the_difference_say_which_is_brighter_and_its_range_is_chosen(
    view, comparison, pair
) -> None:
    comparison.start(*pair, Mode.DIFFERENCE, Options(rangeHu=120.0))
    red, green, blue = view.render()[60, 80].astype(int)  # 20 - 80 = half of the range
    assert blue > green > red
    comparison.set(Options(rangeHu=120.0, swapped=True))
    red, green, blue = view.render()[60, 80].astype(int)
    assert red > green > blue
    comparison.set(Options(rangeHu=60.0))
    assert view.render()[60, 80].min() > 130  # the end of the range: nearly white
    slicer.util.updateVolumeFromArray(pair[1], np.full((32, 32, 32), 20, np.int16))
    assert view.render()[60, 80].max() < 3  # what agrees is black, and changes are followed


def test_the_difference_sees_transforms_and_leaves_out_what_only_one_covers(
    view, comparison, pair
) -> None:
    comparison.start(*pair, Mode.DIFFERENCE)
    place = (30.0, 0.0, 0.0)
    assert computedValue(view, place) == -60
    shift = np.eye(4)
    shift[0, 3] = -60.0  # the second volume now ends at 4 mm to the right
    pair[1].SetAndObserveTransformNodeID(linear_node(shift, "away").GetID())
    assert computedValue(view, (-30.0, 0.0, 0.0)) == -60
    assert computedValue(view, place) < -1e6
    assert view.render()[view.pixel(place)].tolist() == [DARK] * 3  # the first, as it is


def nodeIds() -> list[str]:
    scene = slicer.mrmlScene
    return [scene.GetNthNode(k).GetID() for k in range(scene.GetNumberOfNodes())]


@pytest.mark.parametrize("mode", list(Mode), ids=lambda mode: mode.value)
def test_at_the_end_everything_is_as_before(view, comparison, pair, mode, scene) -> None:
    other = plain(50, "other")
    display.showLayers(scene.scene, other, pair[0], 0.25)
    before, picture = nodeIds(), view.render()
    comparison.start(*pair, mode)
    assert not np.array_equal(view.render(), picture)
    comparison.stop()
    assert nodeIds() == before
    assert np.array_equal(view.render(), picture)
    assert view.logic.GetBlend().GetStencil() is None
    assert view.composite.GetForegroundOpacity() == 0.25


def test_from_mode_to_mode_and_back(view, comparison, pair) -> None:
    before, picture = nodeIds(), view.render()
    for mode in (*Mode, *reversed(Mode)):
        comparison.start(*pair, mode)
    comparison.start(*reversed(pair), Mode.FADE, Options(opacity=0.0))
    assert gray(view)[60, 80] == BRIGHT
    comparison.stop()
    assert nodeIds() == before and np.array_equal(view.render(), picture)


@pytest.mark.parametrize("mode", [Mode.CHECKERBOARD, Mode.DIFFERENCE])
def test_other_volumes_chosen_in_a_view_end_it_and_stay(
    view, pair, mode, scene: SceneHarness
) -> None:
    other = plain(50, "other")
    display.showLayers(scene.scene, other, None, 0.5)
    ended = []
    comparison = Comparison(scene.scene, lambda: ended.append(True))
    comparison.start(*pair, mode)
    view.composite.SetForegroundVolumeID(other.GetID())
    assert ended == [True] and comparison.mode is None
    assert view.composite.GetForegroundVolumeID() == other.GetID()
    yellow = scene.scene.GetSingletonNode("Yellow", "vtkMRMLSliceCompositeNode")
    assert yellow.GetBackgroundVolumeID() == other.GetID()
    assert view.logic.GetBlend().GetStencil() is None


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("mode", [Mode.SPLIT, Mode.RED_CYAN])
def test_a_volume_that_is_removed_ends_it(view, pair, mode, which, scene) -> None:
    ended = []
    comparison = Comparison(scene.scene, lambda: ended.append(True))
    comparison.start(*pair, mode)
    scene.scene.RemoveNode(pair[which])
    assert ended == [True] and comparison.mode is None
    assert not [i for i in nodeIds() if "VectorVolume" in i]
    view.render()


def test_a_scene_saved_meanwhile_holds_nothing_of_it(
    view, comparison, pair, tmp_path, scene
) -> None:
    comparison.start(*pair, Mode.DIFFERENCE)
    picture = view.render()
    assert scene.scene.WriteToMRB(str(tmp_path / "saved.mrb"))
    assert np.array_equal(view.render(), picture) and comparison.mode is Mode.DIFFERENCE
    comparison.forget()
    scene.scene.Clear(0)
    assert scene.scene.ReadFromMRB(str(tmp_path / "saved.mrb"))
    for _ in range(4):  # none of them takes the place of what was computed
        plain(50, "later", spacing=32.0)
    assert len(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")) == 6
    assert gray(view)[60, 80] == DARK


def test_a_scene_can_be_closed_meanwhile(view, comparison, pair, scene) -> None:
    for mode in (Mode.SPLIT, Mode.DIFFERENCE):
        comparison.start(*pair, mode)
        comparison.forget()
        scene.scene.Clear(0)
        assert view.logic.GetBlend().GetStencil() is None
        view.render()
        pair = plain(20, "dark"), plain(80, "bright")


def test_what_cannot_be_compared_is_said_in_one_sentence(comparison, pair, scene) -> None:
    for volumes, words in (
        ((None, pair[0]), "Choose two volumes"),
        ((pair[0], pair[0]), "same volume"),
        ((pair[0], slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")), "empty"),
    ):
        with pytest.raises(InputError, match=words):
            comparison.start(*volumes, Mode.FADE)
    assert comparison.mode is None


def test_oblique_views_too(view, comparison, scene) -> None:
    turned = turn_and_shift()
    turned[:3, 3] = 0
    for row in range(3):
        for column in range(3):
            view.node.GetSliceToRAS().SetElement(row, column, turned[row, column])
    view.node.UpdateMatrices()
    comparison.start(*ramps(), Mode.DIFFERENCE)
    place = turned[:3, :3] @ [12.0, -9.0, 0.0]
    expected = -5 * place[0] + 5 * place[1] + place[2]
    assert computedValue(view, tuple(place)) == pytest.approx(expected, abs=6)
