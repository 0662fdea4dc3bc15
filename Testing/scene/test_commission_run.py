"""Commissioning from Slicer's console, with the real worker process."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import slicer

from GlideReg import GlideRegLogic
from GlideRegLib.errors import GlideRegError, InputError, OutputError, SettingsError
from GlideRegLib.sample_data.phantom import make_phantom_pair
from GlideRegScene.transforms import rasMatrix

pytestmark = pytest.mark.usefixtures("scene")
QUICK = {"features": {"encoder": "none"}, "grid": {"spacing_mm": 8.0}, "threads": 1}


def chest() -> object:
    """A phantom's thorax as a volume node."""
    pair = make_phantom_pair(size=(54, 44, 54), spacing=(6.0,) * 3)
    volume = pair.moving
    node = slicer.util.addVolumeFromArray(np.round(volume.array).astype(np.int16), name="Jane Doe")
    node.SetIJKToRASMatrix(rasMatrix(volume.to_sitk()))
    return node


def test_a_ct_is_commissioned_from_the_console(tmp_path: Path) -> None:
    node, before = chest(), slicer.mrmlScene.GetNumberOfNodes()
    stages = set()
    output = tmp_path / "made" / "report"
    report = GlideRegLogic().commission(
        node,
        output,
        cases=("rigid",),
        preset="fast",
        settings=QUICK,
        onProgress=lambda update: stages.add(update.stage),
    )
    assert {path.name for path in output.iterdir()} == {
        *("report.html", "commission.json", "error_rigid.nii.gz")
    }
    assert report == json.loads((output / "commission.json").read_text(encoding="utf-8"))
    assert report["verdict"] and [case["name"] for case in report["cases"]] == ["rigid"]
    assert report["not_run"] == ["small", "medium", "large"]
    assert "Jane" not in (output / "report.html").read_text(encoding="utf-8").split("base64")[0]
    assert "Commissioning" in stages
    assert slicer.mrmlScene.GetNumberOfNodes() == before


def test_what_cannot_be_commissioned_is_one_sentence(tmp_path: Path) -> None:
    logic = GlideRegLogic()
    flat = slicer.util.addVolumeFromArray(np.zeros((20, 20, 20), np.int16), name="Flat")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Choose a CT"):
        logic.commission(None, tmp_path / "out")
    with pytest.raises(OutputError, match="is a file"):
        logic.commission(flat, tmp_path / "file")
    with pytest.raises(SettingsError):
        logic.commission(flat, tmp_path / "out", preset="gold")
    with pytest.raises(GlideRegError, match=r"^The CT is constant"):
        logic.commission(flat, tmp_path / "out", preset="fast", settings=QUICK)
    assert not (tmp_path / "out").exists()
