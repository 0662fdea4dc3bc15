"""The sample data: what is registered fits the real files, and the points lie in the image."""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import slicer

from slicer_harness.scene import SceneHarness

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "GlideReg"))

from GlideRegLib.landmarks import read_landmarks  # noqa: E402
from GlideRegScene import sample_data  # noqa: E402

ICONS = ROOT / "GlideReg" / "Resources" / "Icons"
#: File in Slicer's cache -> the same file in the data folder.
LOCAL = {
    "GlideReg-lung-baseline.mha": "baseline.mha",
    "GlideReg-lung-followup.mha": "followup.mha",
    "GlideReg-lung-baseline-landmarks.txt": "baseline_points51.txt",
    "GlideReg-lung-followup-landmarks.txt": "followup_points51.txt",
}


class SampleDataLogic:
    """Stands in for Slicer's SampleDataLogic: "downloads" from the data folder."""

    registered: ClassVar[list[SimpleNamespace]] = []
    folder: Path | None = None

    @classmethod
    def registerCustomSampleDataSource(cls, **source: object) -> None:
        cls.registered.append(SimpleNamespace(**source))

    def downloadFromSource(self, source: SimpleNamespace) -> list:
        cache = Path(slicer.mrmlScene.GetCacheManager().GetRemoteCacheDirectory())
        loaded = []
        for name, node_name in zip(source.fileNames, source.nodeNames, strict=True):
            shutil.copyfile(self.folder / LOCAL[name], cache / name)
            if node_name:
                loaded.append(
                    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", node_name)
                )
        return loaded


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What the module registers."""
    module = ModuleType("SampleData")
    module.SampleDataLogic = SampleDataLogic
    monkeypatch.setitem(sys.modules, "SampleData", module)
    monkeypatch.setattr(SampleDataLogic, "registered", [])
    sample_data.registerSampleData(ICONS)
    (source,) = SampleDataLogic.registered
    return source


def test_each_address_names_a_commit_and_has_a_file_a_checksum_and_a_node(
    source: SimpleNamespace,
) -> None:
    lengths = {len(source.uris), len(source.fileNames), len(source.checksums)}
    assert lengths == {len(source.nodeNames)} == {4}  # Slicer refuses lists of different lengths
    for address in source.uris:
        assert address.startswith("https://raw.githubusercontent.com/")
        assert len(address.split("/")[5]) == 40  # a branch could change its files
    assert Path(source.thumbnailFileName).is_file()


def test_the_checksums_are_those_of_the_real_files(
    source: SimpleNamespace, shared_data: Path
) -> None:
    for name, checksum in zip(source.fileNames, source.checksums, strict=True):
        content = (shared_data / "lung_followup" / LOCAL[name]).read_bytes()
        assert checksum == f"SHA256:{hashlib.sha256(content).hexdigest()}", name


def test_loading_gives_two_volumes_and_two_lists_of_matching_landmarks(
    source: SimpleNamespace,
    shared_data: Path,
    scene: SceneHarness,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = shared_data / "lung_followup"
    monkeypatch.setattr(SampleDataLogic, "folder", folder)
    nodes = source.customDownloader(source)
    names = [node.GetName() for node in nodes]
    assert names == [
        "Lung baseline",
        "Lung follow-up",
        "Lung baseline landmarks",
        "Lung follow-up landmarks",
    ]
    for node, file in zip(nodes[2:], ("baseline", "followup"), strict=True):
        ras = slicer.util.arrayFromMarkupsControlPoints(node)
        lps = read_landmarks(folder / f"{file}_points51.txt").points
        np.testing.assert_allclose(ras, lps * [-1, -1, 1], atol=1e-9)


def test_what_could_not_be_downloaded_is_left_out(
    source: SimpleNamespace, scene: SceneHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Slicer returns paths when no node could be loaded.
    monkeypatch.setattr(SampleDataLogic, "downloadFromSource", lambda self, source: ["a.txt"])
    assert source.customDownloader(source) == []


def test_the_real_landmarks_lie_inside_the_real_volume(
    shared_data: Path, scene: SceneHarness
) -> None:
    """Slicer reads the volume, we read the points: both must be in the same frame."""
    folder = shared_data / "lung_followup"
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "baseline")
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(folder / "baseline.mha"))
    assert storage.ReadData(volume)
    node = sample_data.loadLandmarks(folder / "baseline_points51.txt", "points")
    bounds = np.zeros(6)
    volume.GetRASBounds(bounds)
    points = slicer.util.arrayFromMarkupsControlPoints(node)
    assert (points > bounds[0::2]).all()
    assert (points < bounds[1::2]).all()
    assert node.GetNumberOfControlPoints() == 51
