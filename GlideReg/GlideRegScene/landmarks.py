"""Landmark errors of a result as a table and a plot, and the way to the worst of them."""

from dataclasses import dataclass

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk

from .inputs import LandmarkPairs
from .nodes import CreatedNodes
from .transforms import fixedToMoving


@dataclass
class LandmarkErrors:
    """Distances (N,) in mm between corresponding landmarks, before and after registration."""

    before: np.ndarray
    after: np.ndarray


def landmarkErrors(transformNode, pairs: LandmarkPairs) -> LandmarkErrors:
    """TRE of a result node: |T(fixed) - moving|, from the node that is in the scene."""
    moved = fixedToMoving(transformNode, pairs.fixed)
    return LandmarkErrors(
        np.linalg.norm(pairs.fixed - pairs.moving, axis=1),
        np.linalg.norm(moved - pairs.moving, axis=1),
    )


def addLandmarkTable(
    pairs: LandmarkPairs, errors: LandmarkErrors, name: str, created: CreatedNodes
):
    """A table node, worst landmark first: label, TRE before and after (mm), position (RAS mm)."""
    from GlideRegLib.geometry import flip_lps_ras

    order = np.argsort(-errors.after, kind="stable")
    positions = flip_lps_ras(pairs.fixed)[order]
    node = created.add("vtkMRMLTableNode", name)
    table = vtk.vtkTable()
    labels = vtk.vtkStringArray()
    labels.SetName("Landmark")
    for k in order:
        labels.InsertNextValue(pairs.labels[k])
    table.AddColumn(labels)
    columns = {
        "TRE before (mm)": errors.before[order],
        "TRE after (mm)": errors.after[order],
        "R (mm)": positions[:, 0],
        "A (mm)": positions[:, 1],
        "S (mm)": positions[:, 2],
        # For the plot: both curves sorted by themselves, as cumulative curves are read.
        "Rank": np.arange(1.0, len(order) + 1),
        "Sorted before (mm)": np.sort(errors.before),
        "Sorted after (mm)": np.sort(errors.after),
    }
    for title, values in columns.items():
        column = numpy_to_vtk(np.ascontiguousarray(values, dtype=float), deep=True)
        column.SetName(title)
        table.AddColumn(column)
    node.SetAndObserveTable(table)
    node.SetLocked(True)
    return node


def addLandmarkPlot(tableNode, name: str, created: CreatedNodes):
    """A plot chart of the sorted errors before and after, over the rank of the landmark."""
    chart = created.add("vtkMRMLPlotChartNode", name)
    chart.SetTitle("Target registration error (research use only)")
    chart.SetXAxisTitle("Landmarks, sorted by error")
    chart.SetYAxisTitle("TRE (mm)")
    for title, column, color in (
        ("before", "Sorted before (mm)", (0.55, 0.55, 0.55)),
        ("after", "Sorted after (mm)", (0.0, 0.45, 0.70)),
    ):
        series = created.add("vtkMRMLPlotSeriesNode", title)
        series.SetAndObserveTableNodeID(tableNode.GetID())
        series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
        series.SetXColumnName("Rank")
        series.SetYColumnName(column)
        series.SetMarkerStyle(slicer.vtkMRMLPlotSeriesNode.MarkerStyleCircle)
        series.SetColor(*color)
        chart.AddAndObservePlotSeriesNodeID(series.GetID())
    return chart


def worstLandmark(tableNode) -> tuple[str, np.ndarray, float]:
    """Label, world RAS position (mm) and error (mm) of the worst landmark of a table."""
    table = tableNode.GetTable()
    position = [table.GetValueByName(0, f"{axis} (mm)").ToDouble() for axis in "RAS"]
    error = table.GetValueByName(0, "TRE after (mm)").ToDouble()
    return table.GetValueByName(0, "Landmark").ToString(), np.asarray(position), error


def tableErrors(tableNode) -> LandmarkErrors:
    """The errors of a landmark table, worst first."""
    read = (
        slicer.util.arrayFromTableColumn(tableNode, f"TRE {name} (mm)")
        for name in ("before", "after")
    )
    return LandmarkErrors(*(np.array(values) for values in read))
