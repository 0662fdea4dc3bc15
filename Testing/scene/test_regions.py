"""Paired regions of a run as two segmentations: where, which, and in the same colors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
from known_fields import field_image, oblique_image, volume_node

from GlideRegLib.geometry import Grid, flip_lps_ras
from GlideRegLib.regions.pairs import RegionPairs
from GlideRegLib.volume import Volume
from GlideRegScene.inputs import Request, worldMatrix
from GlideRegScene.regions import FIXED_ROLE, MOVING_ROLE
from GlideRegScene.results import importResults, readFiles
from slicer_harness.scene import SceneHarness


@pytest.fixture
def pairs() -> RegionPairs:
    """Two regions on the oblique grid, the moving ones a few voxels off; small inside large."""
    image = oblique_image()
    grid = Grid.from_sitk(image)
    maps = []
    for shift in (0, 2):
        labels = np.zeros(grid.shape, np.int16)
        labels[3:9, 2:10, 2 + shift : 10 + shift] = 1
        labels[5:7, 4:7, 4 + shift : 6 + shift] = 2
        maps.append(Volume(labels, grid))
    return RegionPairs.measured(*maps, [0.93, 0.71])


@pytest.fixture
def output(tmp_path: Path, pairs: RegionPairs) -> Path:
    """Files as the worker writes them."""
    folder = tmp_path / "output"
    folder.mkdir()
    sitk.WriteImage(field_image(), str(folder / "displacement.mha"))
    sitk.WriteImage(sitk.Cast(oblique_image(), sitk.sitkInt16), str(folder / "warped.mha"))
    sitk.WriteImage(oblique_image(), str(folder / "jacobian.mha"))
    report = {
        "quality": {},
        "encoder": {"name": "lite_medsam"},
        "cost": {"seconds": {"total": 5.5}},
        "modality": "ct",
        "provenance": {"settings": {"preset_name": "fast"}, "versions": {}, "device": "cpu"},
    }
    (folder / "result.json").write_text(json.dumps(report), encoding="utf-8")
    pairs.write(folder, ".mha")
    return folder


@pytest.fixture
def request_(scene: SceneHarness) -> Request:
    return Request(volume_node(oblique_image(), "Current"), volume_node(oblique_image(), "Prior"))


def center_of(node, volume, identifier: str) -> np.ndarray:
    """The centroid of a segment, RAS mm, by Slicer's own code."""
    voxels = slicer.util.arrayFromSegmentBinaryLabelmap(node, identifier, volume)
    index = np.argwhere(voxels)[:, ::-1].mean(axis=0)
    return (worldMatrix(volume) @ [*index, 1])[:3]


def test_a_region_has_its_place_name_and_color_in_both_images(request_, output, pairs) -> None:
    result = importResults(request_, readFiles(output), None)
    nodes = (result.fixedRegions, result.movingRegions)
    assert [node.GetName() for node in nodes] == ["Paired regions Current", "Paired regions Prior"]
    assert nodes[0].GetDisplayNode().GetVisibility() == 1
    assert nodes[1].GetDisplayNode().GetVisibility() == 0
    segments = [[n.GetSegmentation().GetNthSegment(k) for k in range(2)] for n in nodes]
    assert [s.GetName() for s in segments[0]] == ["Region 1 (0.93)", "Region 2 (0.71)"]
    assert [s.GetName() for s in segments[1]] == [s.GetName() for s in segments[0]]
    for first, second in zip(*segments, strict=True):
        assert first.GetColor() == second.GetColor()
    assert segments[0][0].GetColor() != segments[0][1].GetColor()
    volumes = (request_.fixedVolume, request_.movingVolume)
    for row in pairs.table:
        for node, volume, center in zip(
            nodes, volumes, (row.fixed_center, row.moving_center), strict=True
        ):
            found = center_of(node, volume, f"region-{row.number}")
            np.testing.assert_allclose(found, flip_lps_ras(np.array([center]))[0], atol=0.02)


def test_the_next_result_takes_the_place_of_the_regions(request_, output, scene) -> None:
    first = importResults(request_, readFiles(output), None)
    request_.transform = first.transform
    second = importResults(request_, readFiles(output), None)
    segmentations = slicer.util.getNodesByClass("vtkMRMLSegmentationNode", scene.scene)
    assert set(segmentations) == {second.fixedRegions, second.movingRegions}
    assert second.transform.GetNodeReference(FIXED_ROLE) is second.fixedRegions
    for file in [*output.glob("regions*")]:  # a method without regions
        file.unlink()
    third = importResults(request_, readFiles(output), None)
    assert third.fixedRegions is None
    assert third.transform.GetNodeReference(MOVING_ROLE) is None
    assert not slicer.util.getNodesByClass("vtkMRMLSegmentationNode", scene.scene)


def test_a_damaged_label_map_leaves_the_scene_as_it_was(request_, output, scene) -> None:
    before = scene.scene.GetNumberOfNodes()
    shutil.copy(output / "result.json", output / "regions_moving.mha")
    with pytest.raises((RuntimeError, ValueError, OSError)):
        importResults(request_, readFiles(output), None)
    assert scene.scene.GetNumberOfNodes() == before
