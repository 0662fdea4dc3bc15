"""Stand-ins (tests only, not shipped) for the qMRML widgets that GlideReg's panel uses.

They have the properties, signals and methods that a panel touches, and follow the real MRML scene.
"""

# ruff: noqa: N801, RUF012

from __future__ import annotations

from typing import Any

import vtk
from PySide6 import QtCore, QtWidgets
from shiboken6 import isValid

from .pythonqt import qt

Property, Signal = QtCore.Property, QtCore.Signal
_NONE, _ACTION = "", "action:"


def stored(kind: Any, name: str, default: Any) -> Any:
    """A Qt property that only remembers its value."""
    return Property(
        kind,
        lambda self: self.__dict__.get(f"_{name}", default),
        lambda self, value: self.__dict__.__setitem__(f"_{name}", value),
    )


def row(widget: Any, *parts: Any) -> None:
    layout = QtWidgets.QHBoxLayout(widget)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(4)
    for part in parts:
        layout.addWidget(part)
    widget.setSizePolicy(QtWidgets.QSizePolicy.Policy.Expanding, QtWidgets.QSizePolicy.Policy.Fixed)


class qMRMLWidget(qt.QWidget):
    """A widget with a scene; who is connected to `mrmlSceneChanged` gets it too."""

    _stand_in = True
    _signal_names = {"mrmlSceneChanged(vtkMRMLScene*)": "mrmlSceneChanged(PyObject)"}
    mrmlSceneChanged = Signal(object)

    def mrmlScene(self) -> Any:
        return self.__dict__.get("_scene")

    def setMRMLScene(self, scene: Any) -> None:
        if scene is not self.mrmlScene():
            self._scene = scene
            self.mrmlSceneChanged.emit(scene)


class qMRMLNodeComboBox(qt.QWidget):
    """Lists the scene's nodes of some types, and creates, renames and deletes them."""

    _stand_in = True
    _signal_names = {
        "currentNodeChanged(vtkMRMLNode*)": "currentNodeChanged(PyObject)",
        "nodeAdded(vtkMRMLNode*)": "nodeAdded(PyObject)",
        "nodeAddedByUser(vtkMRMLNode*)": "nodeAddedByUser(PyObject)",
    }
    currentNodeChanged = Signal((object,), (bool,))
    currentNodeIDChanged = Signal(str)
    nodeAdded, nodeAddedByUser = Signal(object), Signal(object)
    addEnabled, removeEnabled = stored(bool, "add", True), stored(bool, "remove", True)
    renameEnabled, editEnabled = stored(bool, "rename", False), stored(bool, "edit", False)
    baseName = stored(str, "baseName", "")
    selectNodeUponCreation = stored(bool, "selectNew", True)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._scene, self._current, self._observed = None, None, []
        self._types, self._attributes = [], []
        self._flags = {"none": False, "hidden": False, "children": True}
        self._none_text = "None"
        self._combo = QtWidgets.QComboBox(self)
        row(self, self._combo)
        self._combo.activated.connect(self._activated)
        self.enabled = False

    def _listing_property(kind: Any, read: Any, write: Any) -> Any:  # noqa: N805
        def change(self: Any, value: Any) -> None:
            write(self, value)
            self._refresh()

        return Property(kind, read, change)

    nodeTypes = _listing_property(
        "QStringList", lambda s: s._types, lambda s, v: setattr(s, "_types", list(v))
    )
    noneEnabled = _listing_property(
        bool, lambda s: s._flags["none"], lambda s, v: s._flags.update(none=v)
    )
    showHidden = _listing_property(
        bool, lambda s: s._flags["hidden"], lambda s, v: s._flags.update(hidden=v)
    )
    showChildNodeTypes = _listing_property(
        bool, lambda s: s._flags["children"], lambda s, v: s._flags.update(children=v)
    )
    noneDisplay = _listing_property(
        str, lambda s: s._none_text, lambda s, v: setattr(s, "_none_text", v)
    )
    currentNodeID = Property(
        str,
        lambda s: s._current.GetID() if s._current else "",
        lambda s, v: s.setCurrentNodeID(v),
        notify=currentNodeIDChanged,
    )

    def mrmlScene(self) -> Any:
        return self._scene

    def setMRMLScene(self, scene: Any) -> None:
        self._scene = scene
        self.enabled = scene is not None
        self._refresh()

    def currentNode(self) -> Any:
        return self._current

    def setCurrentNode(self, node: Any) -> None:
        self._set_current(node if node in self._nodes() else None)

    def setCurrentNodeID(self, identifier: str | None) -> None:
        self.setCurrentNode(self._scene.GetNodeByID(identifier) if self._scene else None)

    def nodeCount(self) -> int:
        return len(self._nodes())

    def addAttribute(self, nodeType: str, name: str, value: Any = None) -> None:
        self._attributes.append((nodeType, name, value))
        self._refresh()

    def addNode(self, nodeType: str | None = None) -> Any:
        node = self._scene.AddNewNodeByClass(nodeType or self._types[0])
        node.SetName(self._scene.GenerateUniqueName(self.baseName or node.GetNodeTagName()))
        for _, name, value in self._attributes:
            node.SetAttribute(name, value or "")
        self._refresh()
        self.nodeAdded.emit(node)
        self.nodeAddedByUser.emit(node)
        if self.selectNodeUponCreation:
            self.setCurrentNode(node)
        return node

    def removeCurrentNode(self) -> None:
        self._scene.RemoveNode(self._current)

    def _fits(self, node: Any) -> bool:
        names = {node.GetClassName()}
        kinds = [k for k in self._types if node.IsA(k)] if self._flags["children"] else []
        if not (kinds or names & set(self._types)):
            return False
        wanted = [(n, v) for kind, n, v in self._attributes if node.IsA(kind)]
        found = [(node.GetAttribute(n), v) for n, v in wanted]
        if any(has is None or (v is not None and has != v) for has, v in found):
            return False
        return self._flags["hidden"] or not node.GetHideFromEditors()

    def _nodes(self) -> list[Any]:
        if self._scene is None:
            return []
        every = (self._scene.GetNthNode(i) for i in range(self._scene.GetNumberOfNodes()))
        return [node for node in every if self._fits(node)]

    def _observe(self, nodes: list[Any]) -> None:
        for source, tag in self._observed:
            source.RemoveObserver(tag)
        pairs = [(node, vtk.vtkCommand.ModifiedEvent) for node in nodes]
        events = ("NodeAddedEvent", "NodeRemovedEvent", "EndCloseEvent", "EndBatchProcessEvent")
        if self._scene:
            pairs += [(self._scene, getattr(self._scene, event)) for event in events]
        self._observed = [(s, s.AddObserver(e, self._scene_changed)) for s, e in pairs]

    def _scene_changed(self, *_event: Any) -> None:
        if isValid(self):
            self._refresh()

    def _refresh(self) -> None:
        nodes = self._nodes()
        self._observe(nodes)
        entries = [(self._none_text, _NONE)] if self._flags["none"] else []
        entries += [(node.GetName(), node.GetID()) for node in nodes]
        tags = [self._tag(kind) for kind in self._types]
        current = self._current if self._current in nodes else None
        if current is None and nodes and not self._flags["none"]:
            current = nodes[0]
        actions = [f"Create new {tag}" for tag in tags] if self.addEnabled else []
        if current is not None:
            actions += ["Rename current node..."] if self.renameEnabled else []
            actions += ["Delete current node"] if self.removeEnabled else []
        self._combo.clear()
        for text, data in [*entries, *((a, _ACTION + a) for a in actions)]:
            self._combo.addItem(text, data)
        self._set_current(current)

    def _tag(self, kind: str) -> str:
        node = self._scene.CreateNodeByClass(kind) if self._scene else None
        if node is None:
            return kind
        node.UnRegister(None)
        return node.GetNodeTagName()

    def _set_current(self, node: Any) -> None:
        changed, self._current = node is not self._current, node
        self._combo.setCurrentIndex(self._combo.findData(node.GetID() if node else _NONE))
        if changed:
            self.currentNodeChanged[object].emit(node)
            self.currentNodeChanged[bool].emit(node is not None)
            self.currentNodeIDChanged.emit(node.GetID() if node else "")

    def _activated(self, index: int) -> None:
        data = self._combo.itemData(index)
        if not data.startswith(_ACTION):
            self.setCurrentNodeID(data or None)
        elif data.endswith("Delete current node"):
            self.removeCurrentNode()
        elif "Create" in data:
            tags = [f"{_ACTION}Create new {self._tag(kind)}" for kind in self._types]
            self.addNode(self._types[tags.index(data)])
