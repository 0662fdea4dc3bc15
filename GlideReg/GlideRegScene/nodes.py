"""Nodes that a run makes: all of them are known, and all go again when the run does not succeed."""

from collections.abc import Iterator
from contextlib import contextmanager

import slicer


@contextmanager
def onlyTemporarily(scene) -> Iterator[None]:
    """Whatever is added to the scene inside is gone afterward.

    Slicer's logics add more than they say: display nodes, color tables.
    """
    before = set(_nodeIds(scene))
    try:
        yield
    finally:
        for identifier in reversed([i for i in _nodeIds(scene) if i not in before]):
            node = scene.GetNodeByID(identifier)
            if node is not None:  # removing one may have taken others along
                scene.RemoveNode(node)


def _nodeIds(scene) -> list[str]:
    return [scene.GetNthNode(k).GetID() for k in range(scene.GetNumberOfNodes())]


class CreatedNodes:
    """``with CreatedNodes(scene) as created:`` what is added inside vanishes on an exception."""

    def __init__(self, scene) -> None:
        self.scene = scene
        self.nodes: list = []
        self._items: list[int] = []

    def __enter__(self) -> "CreatedNodes":
        return self

    def __exit__(self, kind, error, trace) -> None:
        if kind is not None:
            self.remove()

    def add(self, className: str, name: str, unique: bool = True):
        """A new node of a class, recorded. The name gets a number when it is taken."""
        if unique:
            name = self.scene.GenerateUniqueName(name)
        node = self.scene.AddNewNodeByClass(className, name)
        self.nodes.append(node)
        return node

    def record(self, node) -> None:
        """Remembers a node that Slicer made for us (display nodes, storage nodes)."""
        if node is not None and node not in self.nodes:
            self.nodes.append(node)

    def addFolder(self, name: str, beside) -> int:
        """A subject hierarchy folder next to a node; returns its item ID."""
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self.scene)
        item = hierarchy.GetItemByDataNode(beside)
        parent = hierarchy.GetItemParent(item) if item else hierarchy.GetSceneItemID()
        item = hierarchy.CreateFolderItem(parent, name)
        self._items.append(item)
        return item

    def moveInto(self, folder: int, node) -> None:
        """Shows a node inside a folder of the subject hierarchy."""
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self.scene)
        hierarchy.CreateItem(folder, node)  # moves the item when there is one already

    def remove(self) -> None:
        """Takes everything out of the scene again, the last one first."""
        for node in reversed(self.nodes):
            if node.GetScene() is self.scene:
                self.scene.RemoveNode(node)
        self.nodes.clear()
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self.scene)
        for item in reversed(self._items):
            hierarchy.RemoveItem(item, False, False)
        self._items.clear()


def isInScene(node) -> bool:
    """Whether a node is still part of the scene."""
    return node is not None and node.GetScene() is not None
