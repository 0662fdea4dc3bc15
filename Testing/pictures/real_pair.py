"""The real follow-up pair in a scene, registered by the module's own logic: for pictures."""

from __future__ import annotations

import sys
from pathlib import Path

_TESTING = Path(__file__).resolve().parents[1]
for folder in (_TESTING, _TESTING.parent / "GlideReg"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

import numpy as np  # noqa: E402
import SimpleITK as sitk  # noqa: E402
import slicer  # noqa: E402
import vtk  # noqa: E402

from GlideRegLib.sample_data.local import data_folder  # noqa: E402

WINDOW, LEVEL = 1400, -500


def load_pair() -> dict[str, object]:
    """Nodes ``fixed``, ``moving``, ``fixedLandmarks``, ``movingLandmarks`` in the scene."""
    folder = data_folder() / "lung_followup"
    return {
        "fixed": _volume(folder / "baseline.mha", "Baseline CT"),
        "moving": _volume(folder / "followup.mha", "Follow-up CT"),
        "fixedLandmarks": _landmarks(folder / "baseline_points51.txt", "Baseline landmarks"),
        "movingLandmarks": _landmarks(folder / "followup_points51.txt", "Follow-up landmarks"),
    }


def _volume(path: Path, name: str):
    """As Slicer's reader does it: LPS header to RAS node."""
    from GlideRegScene.transforms import rasMatrix

    image = sitk.ReadImage(str(path))
    node = slicer.util.addVolumeFromArray(sitk.GetArrayFromImage(image), name=name)
    node.SetIJKToRASMatrix(rasMatrix(image))
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().SetAndObserveColorNodeID("vtkMRMLColorTableNodeGrey")
    node.GetDisplayNode().SetAutoWindowLevel(False)
    node.GetDisplayNode().SetWindowLevel(WINDOW, LEVEL)
    return node


def _landmarks(path: Path, name: str):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", name)
    rows = [
        line.split() for line in path.read_text(encoding="utf-8").splitlines()[2:] if line.strip()
    ]
    for x, y, z in np.asarray(rows, dtype=float):
        node.AddControlPoint(vtk.vtkVector3d(-x, -y, z))
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().SetVisibility(False)
    return node
