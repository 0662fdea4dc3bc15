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
        self._before: set[str] = set()
        self._folders: list[int] = []

    def __enter__(self) -> "CreatedNodes":
        self._before = set(_nodeIds(self.scene))
        return self

    def __exit__(self, kind, error, trace) -> None:
        if kind is not None:
            self.remove()

    @property
    def nodes(self) -> list:
        """Everything that was added since, also what Slicer added for us (display nodes)."""
        new = [i for i in _nodeIds(self.scene) if i not in self._before]
        return [self.scene.GetNodeByID(identifier) for identifier in new]

    def add(self, className: str, name: str, unique: bool = False):
        """A new node of a class; with ``unique`` its name gets a number when it is taken."""
        name = self.scene.GenerateUniqueName(name) if unique else name
        return self.scene.AddNewNodeByClass(className, name)

    def addFolder(self, name: str, beside) -> int:
        """A subject hierarchy folder next to a node; returns its item ID."""
        hierarchy = self._hierarchy()
        item = hierarchy.GetItemByDataNode(beside)
        parent = hierarchy.GetItemParent(item) if item else hierarchy.GetSceneItemID()
        folder = hierarchy.CreateFolderItem(parent, name)
        self._folders.append(folder)
        return folder

    def folderOf(self, node, prefix: str) -> int:
        """The folder that a node is in, if its name begins so; else 0."""
        hierarchy = self._hierarchy()
        item = hierarchy.GetItemByDataNode(node)
        parent = hierarchy.GetItemParent(item) if item else 0
        return parent if parent and hierarchy.GetItemName(parent).startswith(prefix) else 0

    def moveInto(self, folder: int, node) -> None:
        """Shows a node inside a folder of the subject hierarchy."""
        self._hierarchy().CreateItem(folder, node)  # moves the item when there is one already

    def moveBeside(self, neighbor, node) -> None:
        """Shows a node in the study or folder of another one in the subject hierarchy."""
        item = self._hierarchy().GetItemByDataNode(neighbor)
        if item:
            self.moveInto(self._hierarchy().GetItemParent(item), node)

    def remove(self) -> None:
        """Takes everything out of the scene again, the last one first."""
        for node in reversed(self.nodes):
            if node is not None:  # removing one may have taken others along
                self.scene.RemoveNode(node)
        for folder in reversed(self._folders):
            self._hierarchy().RemoveItem(folder, False, False)
        self._folders.clear()

    def _hierarchy(self):
        return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self.scene)


@contextmanager
def activeListKept(scene) -> Iterator[None]:
    """Markups that are added inside do not become the list into which the user places points."""
    selection = scene.GetNodeByID("vtkMRMLSelectionNodeSingleton")
    before = selection.GetActivePlaceNodeID() if selection is not None else None
    try:
        yield
    finally:
        if selection is not None and selection.GetActivePlaceNodeID() != before:
            there = before and scene.GetNodeByID(before) is not None
            selection.SetActivePlaceNodeID(before if there else None)


def isInScene(node) -> bool:
    """Whether a node is still part of the scene."""
    return node is not None and node.GetScene() is not None


def isBusy(scene) -> bool:
    """Whether the scene is being loaded or closed: nothing may be added meanwhile."""
    return scene.IsBatchProcessing() or scene.IsImporting() or scene.IsClosing()
