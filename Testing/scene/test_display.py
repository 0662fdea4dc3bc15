"""How a result is shown: layers, deformation, Jacobian, worst landmark, and back again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import slicer
from known_fields import (
    field_image,
    in_ras,
    linear_node,
    markups_node,
    oblique_image,
    some_points,
    turn_and_shift,
    volume_node,
)

from GlideRegScene import display, results, transforms
from GlideRegScene.display import ViewState
from slicer_harness.scene import SceneHarness
from slicer_harness.views import SliceView, ThreeDView


@pytest.fixture
def result(scene: SceneHarness):
    """A result node with its volumes, as the import leaves it."""
    node = scene.scene.AddNewNodeByClass("vtkMRMLTransformNode", "B to A")
    node.SetAndObserveTransformFromParent(transforms.gridTransform(field_image()))
    node.SetAttribute(transforms.ATTRIBUTE, json.dumps({}))
    roles = {
        node.GetFixedNodeReferenceRole(): "A",
        node.GetMovingNodeReferenceRole(): "B",
        results.WARPED_ROLE: "B warped",
        results.JACOBIAN_ROLE: "Jacobian",
    }
    for role, name in roles.items():
        volume = volume_node(oblique_image(), name)
        volume.CreateDefaultDisplayNodes()
        node.SetNodeReferenceID(role, volume.GetID())
    return node


def shown(scene: SceneHarness) -> tuple[str, str, float]:
    """Names of background and foreground and the opacity, the same in all views."""
    found = set()
    for node in display.compositeNodes(scene.scene):
        names = [
            volume.GetName() if volume is not None else ""
            for volume in (
                scene.scene.GetNodeByID(node.GetBackgroundVolumeID() or ""),
                scene.scene.GetNodeByID(node.GetForegroundVolumeID() or ""),
            )
        ]
        found.add((*names, round(node.GetForegroundOpacity(), 3)))
    assert len(found) == 1
    return found.pop()


def test_before_and_after_change_the_foreground_in_all_views(result, scene) -> None:
    display.showResult(result, opacity=0.6)
    assert shown(scene) == ("A", "B warped", 0.6)
    display.showResult(result, before=True, opacity=0.6)
    assert shown(scene) == ("A", "B", 0.6)
    display.setOpacity(scene.scene, 0.25)
    assert shown(scene) == ("A", "B", 0.25)


def test_the_jacobian_is_an_overlay_that_goes_again(result, scene) -> None:
    display.showJacobian(result, True, 0.4)
    assert shown(scene) == ("A", "Jacobian", 0.4)
    display.showJacobian(result, False, 0.5)
    assert shown(scene) == ("A", "B warped", 0.5)


@pytest.mark.parametrize("mode", ["grid", "arrows", "contours"])
def test_the_deformation_is_drawn_where_it_is_asked_for(result, scene, mode) -> None:
    display.showDeformation(result, mode, in2D=True, in3D=False)
    node = result.GetDisplayNode()
    assert node.GetVisualizationMode() == display.DEFORMATION_MODES[mode]
    assert (node.GetVisibility(), node.GetVisibility2D(), node.GetVisibility3D()) == (1, 1, 0)
    display.showDeformation(result, mode, in2D=False, in3D=False)
    assert not node.GetVisibility()


def test_the_colors_span_the_displacements_of_this_field(result, scene) -> None:
    display.showDeformation(result, "grid", True, True)
    vectors, spacing = transforms.displacementLattice(result)
    longest = float(np.linalg.norm(vectors, axis=-1).max())
    colors = result.GetDisplayNode().GetColorNode().GetColorTransferFunction()
    assert colors.GetRange()[1] == pytest.approx(longest, rel=1e-3)
    assert spacing == (4.0, 4.0, 4.0)


def test_restore_brings_the_views_back_and_frees_what_was_put_under_the_transform(
    result, scene
) -> None:
    display.showLayers(scene.scene, slicer.util.getNode("B"), None, 0.0)
    state = ViewState(scene.scene)
    above = linear_node(turn_and_shift(), "above")
    result.SetAndObserveTransformNodeID(above.GetID())
    moved = slicer.util.getNode("B")
    moved.SetAndObserveTransformNodeID(result.GetID())
    display.showResult(result)
    display.showDeformation(result, "grid", True, True)
    display.restoreUnregistered(result, state)
    assert shown(scene) == ("B", "", 0.0)
    assert moved.GetParentTransformNode() is above
    assert not result.GetDisplayNode().GetVisibility()
    assert slicer.util.getNode("B warped") is not None  # results stay, hidden


def test_restore_without_a_remembered_state_shows_the_moving_volume_as_it_was(
    result, scene
) -> None:
    display.showResult(result)
    display.restoreUnregistered(result, None)
    assert shown(scene)[:2] == ("A", "B")


def test_restore_leaves_out_a_volume_that_is_gone(result, scene) -> None:
    extra = volume_node(oblique_image(), "Extra")
    display.showLayers(scene.scene, extra, None, 0.0)
    state = ViewState(scene.scene)
    scene.scene.RemoveNode(extra)
    state.restore(scene.scene)
    assert shown(scene)[0] == ""


def test_the_views_jump_to_the_worst_landmark(result, scene) -> None:
    from GlideRegScene.inputs import landmarkPairs
    from GlideRegScene.landmarks import addLandmarkTable, landmarkErrors
    from GlideRegScene.nodes import CreatedNodes

    assert display.jumpToWorstLandmark(result) is None
    points = some_points(9)
    pairs = landmarkPairs(markups_node(points, "F"), markups_node(points, "M"))
    pairs.moving[:] = transforms.fixedToMoving(result, pairs.fixed)
    pairs.moving[4, 2] += 5.0
    with CreatedNodes(scene.scene) as created:
        errors = landmarkErrors(result, pairs)
        table = addLandmarkTable(pairs, errors, "TRE", created)
    result.SetNodeReferenceID(results.TABLE_ROLE, table.GetID())
    label, error = display.jumpToWorstLandmark(result)
    assert label == pairs.labels[4]
    assert error == pytest.approx(5.0, abs=1e-3)
    expected = in_ras(points[4])
    for view in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        matrix = slicer.util.arrayFromVTKMatrix(view.GetSliceToRAS())
        # The slice plane runs through the landmark: no distance along its normal.
        assert abs(matrix[:3, 2] @ (expected - matrix[:3, 3])) < 1e-6


def test_all_is_really_drawn(result, scene, pictures: Path) -> None:
    """Slicer's own displayable managers see what the display functions set."""
    display.showResult(result, opacity=0.5)
    view = SliceView(scene, "Green", size=(300, 300)).fit()
    view.jump(in_ras(some_points().mean(axis=0)))
    plain = view.render(None)
    grids = []
    for mode in ("grid", "arrows", "contours"):
        display.showDeformation(result, mode, True, False)
        grids.append(view.render(pictures / f"display-{mode}.png"))
        changed = (grids[-1].astype(int) - plain).any(axis=-1).mean()
        assert 0.005 < changed < 0.7, mode
    display.showDeformation(result, "grid", False, True)
    assert not (view.render(None).astype(int) - plain).any()
    three = ThreeDView(scene, size=(300, 300)).look_from("anterior")
    with_grid = three.render(pictures / "display-3d.png")
    display.showDeformation(result, "grid", False, False)
    assert (with_grid.astype(int) - three.render(None)).any(axis=-1).mean() > 0.01


def test_a_result_outside_the_views_is_brought_into_them(result, scene) -> None:
    fixed = result.GetNodeReference(result.GetFixedNodeReferenceRole())
    inside = in_ras(some_points().mean(axis=0))
    views = slicer.util.getNodesByClass("vtkMRMLSliceNode")
    for view in views:
        view.JumpSliceByCentering(*inside)
    display.bringIntoView(fixed)
    for view in views:  # what is seen already is not moved
        at = [view.GetSliceToRAS().GetElement(axis, 3) for axis in range(3)]
        np.testing.assert_allclose(at, inside, atol=1e-6)
        view.JumpSliceByCentering(500.0, 500.0, 900.0)
    display.bringIntoView(fixed)
    bounds = np.zeros(6)
    fixed.GetRASBounds(bounds)
    for view in views:
        at = np.array([view.GetSliceToRAS().GetElement(axis, 3) for axis in range(3)])
        assert np.all(at > bounds[::2]) and np.all(at < bounds[1::2])
