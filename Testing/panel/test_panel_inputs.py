"""The panel before a run: what Apply says, choices that reach the scene, masks, presets."""

from __future__ import annotations

import pathlib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import qt
import slicer
from driving import OpenModule, entries

UI = Path(__file__).resolve().parents[2] / "GlideReg" / "Resources" / "UI"
HAND_BOUND = {"preset", "weightsFile", "fixedMask", "movingMask", "fixedSegment", "movingSegment"}
HAND_BOUND |= {"priorNodules", "currentNodules", "qualityLeftOut", "qualityProfile"}
HAND_BOUND |= {"noduleDays", "noduleDaysPrior", "noduleDaysCurrent"}


def sources() -> list[ElementTree.ElementTree]:
    """The panel's .ui files."""
    return [ElementTree.parse(path) for path in sorted(UI.glob("*.ui"))]


def _node(className: str, name: str) -> Any:
    return slicer.mrmlScene.AddNewNodeByClass(className, name)


def _segmentation(*segments: str) -> Any:
    node = _node("vtkMRMLSegmentationNode", "Organs")
    for name in segments:
        node.GetSegmentation().AddEmptySegment(name, name.capitalize())
    return node


def test_apply_says_what_is_missing_and_when_nothing_is(module: OpenModule, pair: Any) -> None:
    ui = module.ui
    assert (ui.applyButton.text, ui.applyButton.enabled) == ("Choose a fixed volume", False)
    module.pick("fixedVolumeSelector", "Fixed")
    assert (ui.applyButton.text, ui.applyButton.enabled) == ("Choose a moving volume", False)
    module.pick("movingVolumeSelector", "Fixed")
    assert ui.applyButton.text == "The fixed and the moving volume are the same"
    assert ui.applyButton.toolTip.endswith("choose two volumes.")
    module.pick("movingVolumeSelector", "Moving")
    assert ui.applyButton.enabled and ui.applyButton.text.startswith("Register")
    module.pick("fixedLandmarksSelector", "Fixed points")
    assert ui.applyButton.text == "Choose the moving landmarks too, or none"
    module.pick("movingLandmarksSelector", "Moving points")
    assert ui.applyButton.enabled


def test_apply_says_about_how_long_it_will_take(module: OpenModule, pair: Any) -> None:
    module.choose(pair)
    assert module.ui.applyButton.text == "Register (about 10 s on CPU)"
    module.parameters.spacing = 1.0
    longer = module.ui.applyButton.text
    assert "on CPU" in longer and longer != "Register (about 10 s on CPU)"


def test_apply_promises_no_time_that_nobody_knows(
    module: OpenModule, pair: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import GlideRegLib.estimate

    monkeypatch.setattr(GlideRegLib.estimate, "expected_seconds", lambda *inputs: None)
    module.choose(pair)
    assert module.ui.applyButton.text == "Register"


def test_apply_knows_no_time_for_a_gpu(
    module: OpenModule, pair: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    module.choose(pair)
    assert module.ui.applyButton.text == "Register"
    module.ui.deviceCombo.setCurrentIndex(1)
    assert module.parameters.device.value == "cpu"
    assert module.ui.applyButton.text == "Register (about 10 s on CPU)"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "10 s"), (44, "40 s"), (46, "50 s"), (100, "2 min"), (3600, "60 min"), (9000, "2 h")],
)
def test_times_are_told_as_people_do(seconds: float, text: str) -> None:
    from GlideRegPanel.wording import duration

    assert duration(seconds) == text


def test_apply_follows_voxels_transforms_and_outputs(module: OpenModule, pair: Any) -> None:
    ui, parameters = module.ui, module.parameters
    empty = _node("vtkMRMLScalarVolumeNode", "Empty")
    parameters.fixedVolume, parameters.movingVolume = empty, pair.moving
    assert ui.applyButton.text == "The fixed volume is empty"
    empty.SetAndObserveImageData(pair.fixed.GetImageData())
    assert ui.applyButton.enabled
    parameters.fixedVolume = pair.fixed
    bent = _node("vtkMRMLTransformNode", "Bent")
    parameters.initialTransform = bent
    assert ui.applyButton.enabled
    bent.SetAndObserveTransformToParent(slicer.vtkOrientedBSplineTransform())
    assert ui.applyButton.text == "The initial transform is not linear"
    parameters.initialTransform = None
    parameters.warpedVolume = pair.fixed
    assert ui.applyButton.text == "The warped volume would overwrite an input"


def test_apply_says_when_settings_contradict_each_other(module: OpenModule, pair: Any) -> None:
    from GlideRegScene.parameters import Features

    module.choose(pair)
    module.parameters.features = Features.GLOBAL
    assert not module.ui.applyButton.enabled
    assert module.ui.applyButton.text == "These settings cannot be used"
    assert "global features need an encoder" in module.ui.applyButton.toolTip


def test_every_parameter_has_its_widget(module: OpenModule) -> None:
    named = {
        item.findtext("string")
        for source in sources()
        for item in source.iter("property")
        if item.get("name") == "SlicerParameterName"
    }
    assert named | HAND_BOUND == set(module.parameters.allParameters)
    assert not named & HAND_BOUND


def test_everything_has_a_tool_tip_and_every_node_list_gets_the_scene(module: OpenModule) -> None:
    widgets = [widget for source in sources() for widget in source.iter("widget")]
    for widget in widgets:
        if widget.get("class") in ("QWidget", "qMRMLWidget", "QLabel", "QGroupBox"):
            continue  # holds others, or only shows something
        name = widget.get("name")
        assert getattr(module.ui, name).toolTip, f"{name} has no tool tip"
    lists = [w for w in vars(module.ui).values() if w.className() == "qMRMLNodeComboBox"]
    assert len(lists) == len([w for w in widgets if w.get("class") == "qMRMLNodeComboBox"])
    assert all(each.mrmlScene() is slicer.mrmlScene for each in lists)


def test_label_maps_and_vectors_cannot_be_chosen_as_volumes(module: OpenModule) -> None:
    _node("vtkMRMLScalarVolumeNode", "CT")
    _node("vtkMRMLLabelMapVolumeNode", "Labels")
    _node("vtkMRMLVectorVolumeNode", "Colors")
    for name in ("fixedVolumeSelector", "movingVolumeSelector"):
        assert {"Labels", "Colors"}.isdisjoint(entries(getattr(module.ui, name)))
        assert "CT" in entries(getattr(module.ui, name))
    assert "Labels" in entries(module.ui.fixedMaskSelector)
    assert "CT" not in entries(module.ui.fixedMaskSelector)


def test_choices_reach_the_parameter_node_and_come_back(module: OpenModule, pair: Any) -> None:
    module.openSection("advancedSection")
    module.pick("movingVolumeSelector", "Moving")
    module.pick("deviceCombo", "CPU")
    module.pick("encoderCombo", "MobileSAM")
    module.click("automaticStartCheck")
    module.click("useLandmarksCheck")
    module.ui.spacingBox.value = 2.5
    module.ui.weightsFileEdit.currentPath = "/data/weights.pt"
    got = module.parameters
    assert got.movingVolume is pair.moving and got.device.value == "cpu"
    assert (got.encoder, got.automaticStart, got.spacing) == ("mobile_sam", False, 2.5)
    assert got.weightsFile == pathlib.Path("/data/weights.pt")
    assert got.useLandmarks and module.ui.applyButton.text.startswith("Choose")
    got.spacing, got.encoder, got.weightsFile = 0.0, "auto", pathlib.Path()
    assert module.ui.spacingBox.text == "preset"
    assert module.ui.encoderCombo.currentText == "Automatic"
    assert module.ui.weightsFileEdit.currentPath == ""


def test_a_saved_scene_brings_all_choices_back(
    module: OpenModule, pair: Any, tmp_path: Path
) -> None:
    module.choose(pair)
    organs = _segmentation("liver", "lung")
    module.openSection("maskingSection")
    module.pick("fixedMaskSelector", "Organs")
    module.pick("fixedSegmentCombo", "Lung")
    module.parameters.alpha = 0.4
    assert organs is module.parameters.fixedMask
    assert slicer.mrmlScene.WriteToMRB(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(0)
    module.processEvents()
    assert module.parameters.fixedVolume is None and module.ui.fastButton.checked is False
    assert slicer.mrmlScene.ReadFromMRB(str(tmp_path / "scene.mrb"))
    module.processEvents()
    ui = module.ui
    assert ui.fixedVolumeSelector.currentNode().GetName() == "Fixed"
    assert ui.movingLandmarksSelector.currentNode().GetName() == "Moving points"
    assert ui.fixedMaskSelector.currentNode().GetName() == "Organs"
    assert ui.fixedSegmentCombo.currentText == "Lung"
    assert ui.alphaBox.value == 0.4 and ui.fastButton.checked
    assert ui.encoderCombo.currentText == "No encoder" and ui.applyButton.enabled


def test_presets_exclude_each_other(module: OpenModule) -> None:
    chips = ("fastButton", "standardButton", "fineButton")

    def chosen() -> list[str]:
        return [name for name in chips if getattr(module.ui, name).checked]

    assert chosen() == ["standardButton"]
    module.click("fineButton")
    assert chosen() == ["fineButton"] and module.parameters.preset.value == "fine"
    module.click("fineButton")
    assert chosen() == ["fineButton"], "a click on the chosen one must not release it"
    module.click("fastButton")
    assert chosen() == ["fastButton"] and module.parameters.preset.value == "fast"


def test_the_paper_preset_is_a_check_box_and_gives_the_chip_back(module: OpenModule) -> None:
    module.click("fastButton")
    module.openSection("advancedSection")
    assert not module.ui.vaeGroup.visible
    module.click("paperCheck")
    assert module.parameters.preset.value == "paper"
    assert not module.ui.fastButton.checked
    assert module.ui.vaeGroup.visible and module.ui.adamGroup.visible
    assert not module.ui.gaussNewtonGroup.visible and not module.ui.solverCombo.enabled
    module.click("paperCheck")
    assert module.parameters.preset.value == "fast" and module.ui.fastButton.checked


def test_advanced_shows_what_the_solver_and_the_features_use(module: OpenModule) -> None:
    ui = module.ui
    assert ui.advancedSection.collapsed and not ui.solverCombo.visible
    module.openSection("advancedSection")
    assert ui.gaussNewtonGroup.visible and not ui.adamGroup.visible
    module.pick("solverCombo", "Adam (as in the paper)")
    assert ui.adamGroup.visible and not ui.gaussNewtonGroup.visible
    assert ui.weightsFileEdit.enabled
    module.pick("encoderCombo", "No encoder")
    assert not ui.weightsFileEdit.enabled and not ui.reductionCombo.enabled
    module.pick("featuresCombo", "Local features only (MIND)")
    assert not ui.encoderCombo.enabled


def test_a_method_of_the_literature_is_chosen_and_says_what_it_needs(
    module: OpenModule, pair: Any
) -> None:
    from GlideRegLib.methods import METHODS, find
    from GlideRegScene.parameters import METHODS as CHOICES

    assert [name for name in METHODS if not name.startswith("glide-")] == CHOICES
    module.choose(pair)
    module.openSection("advancedSection")
    module.pick("methodCombo", "ConvexAdam")
    assert module.logic.requestFrom(module.parameters).settings["method"] == "convexadam"
    ui = module.ui
    assert not any(w.enabled for w in (ui.featuresCombo, ui.encoderCombo, ui.solverCombo))
    module.pick("methodCombo", "SAMConvex (with our features)")
    assert ui.encoderCombo.enabled and not ui.reductionCombo.enabled
    module.pick("methodCombo", "DINO-Reg (not installed)")
    assert not ui.applyButton.enabled and find("dinoreg").missing() in ui.applyButton.toolTip
    module.click("defaultsButton")
    assert ui.methodCombo.currentText == "GLIDE-Reg" and ui.applyButton.enabled


def test_defaults_puts_everything_advanced_back(module: OpenModule) -> None:
    module.click("fastButton")
    module.openSection("advancedSection")
    parameters = module.parameters
    before = {name: parameters.getValue(name) for name in parameters.allParameters}
    module.click("paperCheck")
    changes = {"method": "convexadam", "encoder": "none", "spacing": 3.0, "iterations": 7}
    changes |= {"threads": 2, "seed": 5}
    changes |= {"alpha": 1.0, "beta": 2.0, "bendingFactor": 3.0, "adamAlpha": 4.0}
    changes |= {"adamBeta": 5.0, "adamBending": 6.0, "reconstruction": 7.0, "divergence": 8.0}
    changes |= {"allowUnverified": True, "weightsFile": pathlib.Path("/data/weights.pt")}
    for name, value in changes.items():
        parameters.setValue(name, value)
    for name in ("featuresCombo", "deviceCombo", "modalityCombo", "reductionCombo", "solverCombo"):
        getattr(module.ui, name).setCurrentIndex(1)
    module.click("defaultsButton")
    assert {name: parameters.getValue(name) for name in parameters.allParameters} == before
    assert module.ui.weightsFileEdit.currentPath == "" and module.ui.fastButton.checked


def test_a_segmentation_lists_its_segments_and_follows_them(module: OpenModule) -> None:
    module.openSection("maskingSection")
    organs, combo = _segmentation("liver", "lung"), module.ui.fixedSegmentCombo
    assert not combo.enabled
    module.pick("fixedMaskSelector", "Organs")
    assert combo.enabled and entries(combo) == ["All segments", "Liver", "Lung"]
    module.pick("fixedSegmentCombo", "Lung")
    assert module.parameters.fixedMask is organs and module.parameters.fixedSegment == "lung"
    organs.GetSegmentation().AddEmptySegment("heart", "Heart")
    organs.GetSegmentation().GetSegment("liver").SetName("Hepar")
    assert entries(combo) == ["All segments", "Hepar", "Lung", "Heart"]
    assert combo.currentText == "Lung"
    module.pick("fixedSegmentCombo", "All segments")
    assert module.parameters.fixedSegment == ""


def test_a_removed_segment_is_not_replaced_by_all_of_them(module: OpenModule) -> None:
    module.openSection("maskingSection")
    organs = _segmentation("liver", "lung")
    module.pick("movingMaskSelector", "Organs")
    module.pick("movingSegmentCombo", "Lung")
    organs.GetSegmentation().RemoveSegment("lung")
    assert module.ui.movingSegmentCombo.currentText == "(removed segment)"
    assert module.parameters.movingSegment == "lung"


def test_a_label_map_is_a_mask_without_segments(module: OpenModule) -> None:
    module.openSection("maskingSection")
    _segmentation("liver")
    labels = _node("vtkMRMLLabelMapVolumeNode", "Labels")
    module.pick("fixedMaskSelector", "Organs")
    module.pick("fixedSegmentCombo", "Liver")
    module.pick("fixedMaskSelector", "Labels")
    assert module.parameters.fixedMask is labels and module.parameters.fixedSegment == ""
    assert not module.ui.fixedSegmentCombo.enabled
    slicer.mrmlScene.RemoveNode(labels)
    assert module.parameters.fixedMask is None
    module.parameters.fixedMask = slicer.mrmlScene.GetFirstNodeByName("Organs")
    assert module.ui.fixedMaskSelector.currentNode().GetName() == "Organs"


def test_the_cache_is_shown_on_opening_and_cleared_after_asking(
    module: OpenModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from slicer_harness.slicer_parts import dialogs

    monkeypatch.setenv("GLIDEREG_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GLIDEREG_WEIGHTS", raising=False)
    weights, features = tmp_path / "cache" / "weights", tmp_path / "cache" / "features"
    for folder in (weights, features):
        folder.mkdir(parents=True)
    (weights / "mobile_sam.pt").write_bytes(bytes(3_000_000))
    (features / "a.features.safetensors").write_bytes(bytes(1_000_000))
    assert module.ui.cacheLocation.text == "–", "nothing is read before the section is opened"
    module.openSection("cacheSection")
    assert module.ui.cacheLocation.text == str(tmp_path / "cache")
    assert module.ui.cacheSize.text == "4 MB"
    dialogs.answers["confirmOkCancelDisplay"] = False
    module.click("clearCacheButton")
    assert dialogs.shown[-1][0] == "confirmOkCancelDisplay"
    assert (weights / "mobile_sam.pt").is_file()
    dialogs.answers["confirmOkCancelDisplay"] = True
    module.click("clearCacheButton")
    assert module.ui.cacheSize.text == "0 MB (4 MB freed)"
    assert not list(weights.glob("*.pt")) and not list(features.iterdir())
    module.click("openCacheButton")
    assert dialogs.shown[-1] == ("openUrl", (tmp_path / "cache").as_uri())


def test_the_cache_says_so_when_packages_are_missing(
    module: OpenModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    import GlideRegPanel.cache

    def missing() -> None:
        raise ImportError("platformdirs")

    monkeypatch.setattr(GlideRegPanel.cache, "_rootAndSize", missing)
    module.openSection("cacheSection")
    assert "once the Python packages are installed" in module.ui.cacheLocation.text
    assert not module.ui.clearCacheButton.enabled


def test_the_panel_imports_nothing_heavy() -> None:
    """A fresh interpreter opens the panel without PyTorch, SciPy and their like."""
    import subprocess
    import sys

    code = (
        "import sys; sys.path[:0] = sys.argv[1:]; import slicer_harness; slicer_harness.install();"
        "from slicer_harness.scene import fresh_scene; scene = fresh_scene();"
        "from driving import OpenModule, makePair; module = OpenModule();"
        "module.choose(makePair()); assert module.ui.applyButton.enabled;"
        "print([n for n in ('torch', 'scipy', 'matplotlib', 'rich') if n in sys.modules])"
    )
    root = Path(__file__).resolve().parents[2]
    paths = [str(root / name) for name in ("Testing", "GlideReg", "Testing/panel", ".")]
    done = subprocess.run(
        [sys.executable, "-c", code, *paths], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("[]"), done.stdout


def test_values_of_the_panel_become_the_librarys_settings(module: OpenModule, pair: Any) -> None:
    module.choose(pair)
    module.ui.alphaBox.value = 0.5
    module.ui.automaticStartCheck.checked = False
    settings = module.logic.requestFrom(module.parameters).settings
    assert settings["preset_name"] == "fast" and settings["initial"] == "none"
    assert np.isclose(settings["refine"]["levels"][0]["alpha"], 0.5)


def test_a_picture_of_the_panel_is_not_blank(module: OpenModule, tmp_path: Path) -> None:
    from PySide6 import QtWidgets

    picture = QtWidgets.QWidget.grab(module.parent)
    assert picture.save(str(tmp_path / "panel.png"))
    image = picture.toImage()
    assert len({image.pixel(x, y) for x in range(0, 480, 3) for y in range(0, 700, 3)}) > 20
    assert isinstance(module.ui.noticeLabel, qt.QLabel)
    assert module.ui.noticeLabel.text == "Research use only. Not a medical device."


def test_a_node_is_followed_only_while_it_has_the_role(scene: Any) -> None:
    from GlideRegPanel.section import Section

    section, heard = Section(ui=None), []
    first, second = (_node("vtkMRMLScalarVolumeNode", name) for name in ("first", "second"))

    def listen(caller: Any, event: str) -> None:
        heard.append(caller.GetName())

    def change() -> list[str]:
        heard.clear()
        first.Modified()
        second.Modified()
        return list(heard)

    section.follow("fixed", first, ("ModifiedEvent",), listen)
    section.follow("moving", first, ("ModifiedEvent",), listen)
    assert change() == ["first", "first"]
    section.follow("fixed", second, ("ModifiedEvent",), listen)
    assert change() == ["first", "second"]
    section.bind(None)
    assert change() == []
