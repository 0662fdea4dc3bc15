"""A usable MRML scene from slicer-core, as the desktop would have it: real logics, no window.

Without its logics a scene cannot even save (storage nodes are None); without a cache and a data I/O
manager it cannot load ``.mrb``. Everything here is Slicer's own code; nothing is a stand-in.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace

import slicer

#: Logic class -> the name of the module under which others ask for it.
_MODULE_LOGICS = {
    "vtkSlicerVolumesLogic": "Volumes",
    "vtkSlicerTransformLogic": "Transforms",
    "vtkSlicerMarkupsLogic": "Markups",
    "vtkSlicerModelsLogic": "Models",
    "vtkSlicerSegmentationsModuleLogic": "Segmentations",
    "vtkSlicerSubjectHierarchyModuleLogic": "SubjectHierarchy",
    "vtkSlicerTablesLogic": "Tables",
    "vtkSlicerPlotsLogic": "Plots",
    "vtkSlicerUnitsLogic": "Units",
}


@dataclass
class SceneHarness:
    """A scene with its application logic and module logics; keep it alive while it is used."""

    scene: slicer.vtkMRMLScene
    application: slicer.vtkMRMLApplicationLogic
    logics: dict[str, object] = field(default_factory=dict)
    on_close: list[Callable[[], None]] = field(default_factory=list)
    _kept: list[object] = field(default_factory=list)

    def close(self) -> None:
        """Empties the scene and lets go of everything; views first, they watch the scene."""
        while self.on_close:
            self.on_close.pop()()
        self.scene.Clear(1)
        slicer.mrmlScene = None
        self.logics.clear()
        self._kept.clear()


def fresh_scene() -> SceneHarness:
    """A new scene as ``slicer.mrmlScene``, with module logics, views' nodes, and loading of .mrb.

    Never reuse a scene: ``Clear(0)`` leaves singleton parameter nodes behind.
    """
    scene = slicer.vtkMRMLScene()
    slicer.mrmlScene = scene
    application = slicer.vtkMRMLApplicationLogic()
    application.SetMRMLScene(scene)
    harness = SceneHarness(scene, application)
    _add_remote_io(harness)
    for class_name, module in _MODULE_LOGICS.items():
        logic = getattr(slicer, class_name)()
        if hasattr(logic, "SetMRMLApplicationLogic"):
            logic.SetMRMLApplicationLogic(application)
        if hasattr(application, "SetModuleLogic"):
            application.SetModuleLogic(module, logic)
        logic.SetMRMLScene(scene)
        harness.logics[module] = logic
    scene.RegisterNodeClass(slicer.vtkMRMLColorLegendDisplayNode())
    colors = slicer.vtkMRMLColorLogic()
    colors.SetMRMLScene(scene)
    application.SetColorLogic(colors)
    application.SetModuleLogic("Colors", colors)  # else volumes that are loaded stay black
    harness.logics["Colors"] = colors
    _publish_modules(harness)
    _add_slice_views(scene)
    return harness


def _publish_modules(harness: SceneHarness) -> None:
    """``slicer.modules.volumes.logic()`` and its like, which slicer.util asks for."""
    modules = {
        name.lower(): SimpleNamespace(logic=lambda logic=logic: logic)
        for name, logic in harness.logics.items()
    }
    slicer.modules = SimpleNamespace(**modules)


def _add_remote_io(harness: SceneHarness) -> None:
    logic = slicer.vtkMRMLRemoteIOLogic()
    folder = tempfile.TemporaryDirectory(prefix="glidereg-scene-cache-")
    harness._kept.append(folder)
    logic.GetCacheManager().SetRemoteCacheDirectory(folder.name)
    logic.SetMRMLScene(harness.scene)
    logic.AddDataIOToScene()
    harness._kept.append(logic)


def _add_slice_views(scene: slicer.vtkMRMLScene) -> None:
    """The three slice views and the 3-D view of the desktop's default layout, as nodes."""
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene)
    for name, orientation in (("Red", "Axial"), ("Yellow", "Sagittal"), ("Green", "Coronal")):
        node = scene.CreateNodeByClass("vtkMRMLSliceNode")  # with the scene's default presets
        node.UnRegister(None)
        node.SetName(name)
        node.SetLayoutName(name)
        node.SetSingletonTag(name)
        scene.AddNode(node)
        node.SetOrientation(orientation)
        composite = slicer.vtkMRMLSliceCompositeNode()
        composite.SetLayoutName(name)
        composite.SetSingletonTag(name)
        scene.AddNode(composite)
    view = slicer.vtkMRMLViewNode()
    view.SetLayoutName("1")
    view.SetSingletonTag("1")
    view.SetName("View1")
    scene.AddNode(view)
