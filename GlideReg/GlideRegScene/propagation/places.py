"""Markups and models: what they are made of are points, which are pushed."""

from functools import partial

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from .files import ItemFile, copyLooks, writePoints


class _PlacesItem:
    """A node whose ``points`` (world LPS) go through the worker as one file."""

    def __init__(self, node, name: str, request) -> None:
        self.node = node
        points = self._points()
        self.files = [ItemFile("meshes", f"{name}.ply", partial(writePoints, points))]

    def _points(self) -> np.ndarray:
        raise NotImplementedError

    def notes(self, entries: list[dict], request) -> list[str]:
        """What the user has to know about this node."""
        entry, name, found = entries[0], self.node.GetName(), []
        count = entry["count"]
        if entry["outside_source"] and request.source is not None:
            found.append(
                f"{entry['outside_source']} of {count} points of '{name}' lie outside "
                f"'{request.source.GetName()}'; check the direction, and that they belong to it."
            )
        elif entry["outside_target"]:
            found.append(
                f"{entry['outside_target']} of {count} points of '{name}' came to lie outside "
                f"'{request.target.GetName()}'."
            )
        missed = entry["inverse_error_mm"]
        if missed is not None and missed["beyond"]:
            found.append(
                f"{missed['beyond']} of {missed['n']} points of '{name}' could not be placed "
                f"exactly, and are off by {missed['max']:.1f} mm at most: the transform has no "
                "inverse there, because its field ends, jumps or folds."
            )
        return found


class MarkupsItem(_PlacesItem):
    """Points, lines, angles and curves by their control points; a ROI becomes the box that holds
    all of it."""

    @staticmethod
    def problem(node) -> str:
        if node.IsA("vtkMRMLMarkupsPlaneNode"):
            return (
                f"'{node.GetName()}' is a plane, which does not stay one; points, lines, curves "
                "and ROIs are carried."
            )
        return "" if _placed(node) else f"The markups '{node.GetName()}' hold no placed points."

    @property
    def _isBox(self) -> bool:
        return self.node.IsA("vtkMRMLMarkupsROINode")

    def _points(self) -> np.ndarray:
        from GlideRegLib.geometry import flip_lps_ras
        from GlideRegLib.propagation.markups import carried_box

        self._rows = _placed(self.node)
        if not self._isBox:
            world = [self.node.GetNthControlPointPositionWorld(k) for k in self._rows]
            return flip_lps_ras(np.array(world))
        asked: list[np.ndarray] = []
        self._box = _boxOf(self.node)
        carried_box(*self._box, lambda points: asked.append(points) or points)
        return asked[0]

    def build(self, new, carried: list, request) -> None:
        """Fills a new node; order, labels, descriptions and looks stay."""
        from GlideRegLib.geometry import flip_lps_ras

        name = new.GetName()
        new.CopyContent(self.node)
        new.SetName(name)
        new.SetAndObserveTransformNodeID(None)
        if self._isBox:
            self._buildBox(new, carried[0])
        else:
            for k, point in zip(self._rows, flip_lps_ras(carried[0]).tolist(), strict=True):
                new.SetNthControlPointPositionWorld(k, *point)
        copyLooks(self.node, new)

    def _buildBox(self, new, moved: np.ndarray) -> None:
        from GlideRegLib.geometry import flip_lps_ras
        from GlideRegLib.propagation.markups import carried_box

        center, axes, size = carried_box(*self._box, lambda points: moved)
        placed = np.eye(4)
        placed[:3, :3], placed[:3, 3] = flip_lps_ras(axes.T).T, flip_lps_ras(center)
        result = vtk.vtkMatrix4x4()
        slicer.util.updateVTKMatrixFromArray(result, placed)
        new.SetAndObserveObjectToNodeMatrix(result)
        new.SetSize(*size.tolist())


def _placed(node) -> list[int]:
    placed = slicer.vtkMRMLMarkupsNode.PositionDefined
    count = node.GetNumberOfControlPoints()
    return [k for k in range(count) if node.GetNthControlPointPositionStatus(k) == placed]


def _boxOf(node) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Center, axes in columns, and size of a ROI in world LPS mm."""
    from GlideRegLib.geometry import flip_lps_ras

    matrix = slicer.util.arrayFromVTKMatrix(node.GetObjectToWorldMatrix())
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    axes = flip_lps_ras((matrix[:3, :3] / lengths).T).T
    return flip_lps_ras(matrix[:3, 3]), axes, np.asarray(node.GetSize()) * lengths


class ModelItem(_PlacesItem):
    """The points move; normals are computed again from the faces."""

    @staticmethod
    def problem(node) -> str:
        mesh = node.GetMesh()
        if mesh is None or mesh.GetNumberOfPoints() == 0:
            return f"The model '{node.GetName()}' is empty."
        return ""

    def _points(self) -> np.ndarray:
        from GlideRegLib.geometry import flip_lps_ras

        toWorld = vtk.vtkGeneralTransform()
        parent = self.node.GetParentTransformNode()
        slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(parent, None, toWorld)
        world = vtk.vtkPoints()
        world.SetDataTypeToDouble()
        toWorld.TransformPoints(self.node.GetMesh().GetPoints(), world)
        return flip_lps_ras(vtk_to_numpy(world.GetData()))

    def build(self, new, carried: list, request) -> None:
        """Fills a new node; faces, scalars and looks stay."""
        from GlideRegLib.geometry import flip_lps_ras

        mesh = self.node.GetMesh().NewInstance()
        mesh.DeepCopy(self.node.GetMesh())
        if mesh.GetNumberOfPoints() != len(carried[0]):
            from GlideRegLib.errors import InputError

            raise InputError(f"The model '{self.node.GetName()}' was changed during the run.")
        moved = np.ascontiguousarray(flip_lps_ras(carried[0]), np.float32)
        points = vtk.vtkPoints()
        points.SetData(numpy_to_vtk(moved, deep=True))
        mesh.SetPoints(points)
        if isinstance(mesh, vtk.vtkPolyData) and mesh.GetPointData().GetNormals() is not None:
            mesh = _withNewNormals(mesh)
        new.SetAndObserveMesh(mesh)
        copyLooks(self.node, new)


def _withNewNormals(mesh):
    again = vtk.vtkPolyDataNormals()
    again.SetInputData(mesh)
    again.SplittingOff()
    again.ConsistencyOff()
    again.Update()
    return again.GetOutput()
