"""How a deformation is drawn: sizes that fit the displacements, and what can be set by hand."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
from known_fields import (
    centers,
    field_image,
    in_ras,
    linear_node,
    oblique_image,
    some_points,
    volume_node,
)

from GlideRegLib.errors import InputError
from GlideRegScene import display, transforms
from GlideRegScene.compare import deformation
from slicer_harness.views import SliceView


def field_node(factor: float = 1.0) -> object:
    """The known field, its displacements made longer or shorter, over its fixed volume."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "field")
    known = field_image()
    image = sitk.GetImageFromArray(
        sitk.GetArrayFromImage(known) * np.float32(factor), isVector=True
    )
    image.CopyInformation(known)
    node.SetAndObserveTransformFromParent(transforms.gridTransform(image))
    fixed = volume_node(oblique_image(), "fixed")
    node.SetNodeReferenceID(node.GetFixedNodeReferenceRole(), fixed.GetID())
    return node


def longest(factor: float) -> float:
    """The longest displacement within the bounds of the fixed volume."""
    image = field_image()
    lengths = np.linalg.norm(sitk.GetArrayFromImage(image).reshape(-1, 3) * factor, axis=1)
    corners = centers(oblique_image())
    places = centers(image)
    inside = np.all((places > corners.min(0) - 3) & (places < corners.max(0) + 3), axis=1)
    return float(lengths[inside].max())


def test_displacements_of_the_usual_size_are_drawn_as_long_as_they_are(scene) -> None:
    drawing = deformation.suggested(field_node())
    assert drawing.longestMm == pytest.approx(longest(1.0), rel=1e-4)
    assert (drawing.spacingMm, drawing.scalePercent) == (12.0, 100.0)
    assert drawing.levelsMm == (2, 3, 4, 5, 6, 7)


def test_long_ones_get_room_and_short_ones_are_enlarged(scene) -> None:
    assert 12 < deformation.suggested(field_node(5.0)).spacingMm <= 30
    small = deformation.suggested(field_node(0.1))
    assert small.scalePercent == 100 * np.floor(6 / longest(0.1)) and small.spacingMm == 12
    assert small.levelsMm == (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
    none = deformation.suggested(field_node(0.0))
    assert (none.scalePercent, none.levelsMm) == (100.0, ())


def test_contours_lie_where_the_displacements_are(scene) -> None:
    shifted = 30.0 + np.linspace(0, 4, 100)
    assert deformation.contourLevels(shifted) == (30, 30.5, 31, 31.5, 32, 32.5, 33, 33.5, 34)
    assert deformation.contourLevels(np.full(9, 5.0)) == (5.0,)


def test_a_transform_of_other_software_is_sampled_around_a_volume(scene) -> None:
    matrix = np.eye(4)
    matrix[:3, 3] = (3.0, 0.0, -4.0)
    node = linear_node(matrix)
    assert deformation.displacementLengths(node).size == 0
    volume = volume_node(oblique_image(), "fixed")
    np.testing.assert_allclose(deformation.displacementLengths(node, volume), 5.0, atol=1e-5)


def test_what_is_set_is_read_back_and_visibility_stays(scene) -> None:
    node = field_node()
    display.showDeformation(node, "contours", True, False)
    wanted = deformation.Drawing(20.0, 250.0, (1.5, 3.0))
    deformation.draw(node, wanted)
    assert deformation.drawn(node) == wanted
    shown = node.GetDisplayNode()
    assert shown.GetVisibility2D() and not shown.GetVisibility3D()
    assert shown.GetVisualizationMode() == shown.VIS_MODE_CONTOUR
    assert shown.GetGridSpacingMm() % shown.GetGridResolutionMm() == pytest.approx(0)


def test_wider_spacing_draws_fewer_lines_and_arrows(scene, can_render) -> None:
    node = field_node()
    fixed = node.GetNodeReference(node.GetFixedNodeReferenceRole())
    view = SliceView(scene, "Green", size=(200, 200)).show(fixed).fit()
    view.jump(in_ras(some_points().mean(axis=0)))
    plain = view.render().astype(int)
    for mode, least in (("grid", 1.5), ("arrows", 2.0)):
        display.showDeformation(node, mode, True, False)
        shares = []
        for spacing in (8.0, 24.0):
            deformation.draw(node, deformation.Drawing(spacing, 100.0))
            shares.append(float((view.render() != plain).any(axis=-1).mean()))
        assert shares[0] > least * shares[1] > 0, (mode, shares)


@pytest.mark.parametrize(
    ("text", "levels"), [("2 5 10", (2, 5, 10)), ("10, 2.5,5", (2.5, 5, 10)), (" 1 1 ", (1,))]
)
def test_contour_levels_are_read_as_people_write_them(text, levels) -> None:
    assert deformation.levelsFrom(text) == levels


@pytest.mark.parametrize("text", ["", "2 mm", "-1 2", "nan", "inf"])
def test_contour_levels_that_are_none_are_refused_in_one_sentence(text) -> None:
    with pytest.raises(InputError, match="example: 2 5 10"):
        deformation.levelsFrom(text)
