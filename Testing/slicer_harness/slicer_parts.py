"""Stand-ins (tests only, not shipped) for what `slicer` has in the desktop and not in slicer-core.

Nothing here waits for a person: a question is recorded in `dialogs.shown` and answered from
`dialogs.answers`; an installation is recorded in `installer.calls` and never done.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import tempfile
import types
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer
import slicer.util
from packaging.requirements import Requirement


class Dialogs:
    """What was said to the user, and what the user answers."""

    def __init__(self) -> None:
        self.shown: list[tuple[str, str]] = []
        self.answers: dict[str, Any] = {}

    def ask(self, kind: str, text: str, usual: Any = None) -> Any:
        self.shown.append((kind, text))
        answer = self.answers.get(kind, usual)
        return answer(text) if callable(answer) else answer

    def reset(self) -> None:
        self.shown.clear()
        self.answers.clear()


class Installer:
    """`slicer.packaging.pip_ensure` and `pip_install`: recorded, with an outcome to set.

    `outcome` is None (it went well) or an exception, for example RuntimeError: declined.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], dict[str, Any]]] = []
        self.outcome: Exception | type[Exception] | None = None

    def pip_ensure(self, requirements: Any, **options: Any) -> None:
        self.calls.append(([str(r) for r in _requirements(requirements)], options))
        if self.outcome is not None:
            raise self.outcome

    pip_install = pip_ensure

    def reset(self) -> None:
        self.calls.clear()
        self.outcome = None


dialogs, installer = Dialogs(), Installer()


def _requirements(given: Any) -> list[Requirement]:
    given = [given] if isinstance(given, (str, Requirement)) else given
    return [r if isinstance(r, Requirement) else Requirement(r) for r in given]


def load_requirements(path: str | Path) -> list[Requirement]:
    lines = (line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]


def pip_check(requirements: Any) -> bool:
    for requirement in _requirements(requirements):
        if requirement.marker and not requirement.marker.evaluate():
            continue
        try:
            if importlib.metadata.version(requirement.name) not in requirement.specifier:
                return False
        except importlib.metadata.PackageNotFoundError:
            return False
    return True


class _Signals:
    """Something with signals by signature; a test sends one with `emit`."""

    def __init__(self) -> None:
        self.slots: dict[str, list[Callable[..., Any]]] = {}

    def connect(self, signature: str, slot: Callable[..., Any]) -> bool:
        self.slots.setdefault(signature, []).append(slot)
        return True

    def disconnect(self, signature: str, slot: Callable[..., Any]) -> bool:
        known = slot in self.slots.get(signature, [])
        if known:
            self.slots[signature].remove(slot)
        return known

    def emit(self, signature: str, *arguments: Any) -> None:
        for slot in list(self.slots.get(signature, [])):
            slot(*arguments)


class _Environment(dict):
    """The environment as `slicer.util.startupEnvironment` reads it."""

    value = dict.get


class Application(_Signals):
    """`slicer.app`. Names with an underscore inside are for tests to set."""

    applicationName, applicationVersion, revision = "Slicer", "5.12.4", "34445"
    majorVersion, minorVersion, mainApplicationName = 5, 12, "Slicer"

    def __init__(self) -> None:
        super().__init__()
        self.temporaryPath = tempfile.mkdtemp(prefix="glidereg-slicer-")
        self.slicerHome = self.temporaryPath
        self.testing_enabled = False
        self.layout_manager: Any = None
        self.application_logic: Any = None
        self.module_manager = _Signals()

    def testingEnabled(self) -> bool:
        return self.testing_enabled

    def layoutManager(self) -> Any:
        return self.layout_manager

    def applicationLogic(self) -> Any:
        return self.application_logic

    def moduleManager(self) -> _Signals:
        return self.module_manager

    def mrmlScene(self) -> Any:
        return slicer.mrmlScene

    def topLevelWidgets(self) -> list[Any]:
        return []

    def translate(self, context: str, text: str) -> str:
        return text

    def startupEnvironment(self) -> _Environment:
        return _Environment(os.environ)

    def settings(self) -> Any:
        import qt

        return qt.QSettings()

    userSettings = settings

    def processEvents(self, *_flags: Any) -> None:
        import sys

        if "qt" in sys.modules:
            sys.modules["qt"].QApplication.processEvents()

    def pauseRender(self) -> None: ...

    def resumeRender(self) -> None: ...

    def setOverrideCursor(self, cursor: Any) -> None: ...

    def restoreOverrideCursor(self) -> None: ...


class ScriptedLoadableModule:
    """A module's description: fills `parent` (any object with a `path`) with title and texts."""

    def __init__(self, parent: Any) -> None:
        self.parent = parent
        self.moduleName = type(self).__name__
        parent.title, parent.helpText, parent.acknowledgementText = "", "", ""
        parent.categories, parent.dependencies, parent.contributors = [], [], []

    def resourcePath(self, name: str) -> str:
        return str(Path(self.parent.path).parent / "Resources" / name)

    def getDefaultModuleDocumentationLink(self, docPage: str | None = None) -> str:
        return ""


class ScriptedLoadableModuleWidget:
    """A module's panel; without a parent it makes one and calls `setup` at once."""

    def __init__(self, parent: Any = None) -> None:
        import qt

        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.developerMode = slicer.util.settingsValue(
            "Developer/DeveloperMode", False, converter=slicer.util.toBool
        )
        self.parent = parent or slicer.qMRMLWidget()
        if not parent:
            self.parent.setLayout(qt.QVBoxLayout())
            self.parent.setMRMLScene(slicer.mrmlScene)
        self.layout = self.parent.layout()
        if not parent:
            self.setup()
            self.parent.show()

    def resourcePath(self, name: str) -> str:
        return str(Path(slicer.util.modulePath(self.moduleName)).parent / "Resources" / name)

    def setup(self) -> None: ...

    def cleanup(self) -> None: ...


class ScriptedLoadableModuleLogic:
    """A module's logic with its parameter node, one to a scene."""

    def __init__(self, parent: Any = None) -> None:
        self.moduleName = type(self).__name__.removesuffix("Logic")
        self.isSingletonParameterNode = True

    def getAllParameterNodes(self) -> list[Any]:
        nodes = slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode")
        return [node for node in nodes if node.GetAttribute("ModuleName") == self.moduleName]

    def getParameterNode(self) -> Any:
        if self.isSingletonParameterNode:
            kind = "vtkMRMLScriptedModuleNode"
            node = slicer.mrmlScene.GetSingletonNode(self.moduleName, kind)
            if node:
                node.SetAttribute("ModuleName", self.moduleName)
        else:
            node = next(iter(self.getAllParameterNodes()), None)
        return node or slicer.mrmlScene.AddNode(self.createParameterNode())

    def createParameterNode(self) -> Any:
        node = slicer.vtkMRMLScriptedModuleNode()
        if self.isSingletonParameterNode:
            node.SetSingletonTag(self.moduleName)
        node.SetAttribute("ModuleName", self.moduleName)
        node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    """A module's self-test; `delayDisplay` logs."""

    def delayDisplay(self, message: str, requestedDelay: Any = None, msec: Any = None) -> None:
        logging.info(message)

    def runTest(self) -> None: ...


def _message(kind: str, usual: Any = None) -> Callable[..., Any]:
    def display(text: str, *_rest: Any, **_options: Any) -> Any:
        return dialogs.ask(kind, text, usual)

    return display


def _module(name: str, **contents: Any) -> types.ModuleType:
    module = types.ModuleType(name, __doc__)
    vars(module).update(contents)
    return module


def stand_in_modules() -> dict[str, types.ModuleType]:
    """`slicer.i18n`, `slicer.packaging` and `slicer.ScriptedLoadableModule`, by their names."""
    classes = (
        ScriptedLoadableModule,
        ScriptedLoadableModuleWidget,
        ScriptedLoadableModuleLogic,
        ScriptedLoadableModuleTest,
    )
    named = {one.__name__: one for one in classes}
    return {
        "i18n": _module("i18n", tr=lambda text: text, translate=lambda context, text: text),
        "packaging": _module("packaging", load_requirements=load_requirements, pip_check=pip_check),
        "ScriptedLoadableModule": _module("ScriptedLoadableModule", __all__=list(named), **named),
    }


def add_to_slicer() -> None:
    """Give the slicer package `app`, `modules`, a scene, and messages that do not wait."""
    slicer.app = Application()
    slicer.modules = types.SimpleNamespace()
    if not hasattr(slicer, "mrmlScene"):
        slicer.mrmlScene = slicer.vtkMRMLScene()
    for kind in ("errorDisplay", "warningDisplay", "infoDisplay", "delayDisplay"):
        setattr(slicer.util, kind, _message(kind))
    for kind in ("confirmOkCancelDisplay", "confirmYesNoDisplay", "showStatusMessage"):
        setattr(slicer.util, kind, _message(kind, True))
    slicer.util.confirmRetryCloseDisplay = _message("confirmRetryCloseDisplay", False)
    slicer.util.messageBox = _message("messageBox", 1024)
