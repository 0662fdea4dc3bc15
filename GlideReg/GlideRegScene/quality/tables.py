"""The table nodes of an assessment: every measure with its verdict, and how structures moved.

An attribute of the first holds the library's ``Assessment`` as JSON; the columns are made from it.
Everything is saved with the scene.
"""

import json
from typing import TYPE_CHECKING

import slicer
import vtk

from ..nodes import isInScene

if TYPE_CHECKING:
    from GlideRegLib.assurance.records import Assessment, Measure

ATTRIBUTE = "GlideReg.Assessment"
#: Roles of what belongs to the table.
MOTION_ROLE, FOLDS_ROLE, JACOBIAN_ROLE = (
    "GlideRegMotionTable",
    "GlideRegFoldMarkers",
    "GlideRegDeterminant",
)
NOTICE = "Assessment of a registration. Research use only. Not a medical device."
AXES = ("lr", "ap", "si")
_HEADERS = ("L-R (mm, left +)", "A-P (mm, posterior +)", "S-I (mm, superior +)")


def isQualityTable(node) -> bool:
    """Whether a node is the table of an assessment of this module."""
    return node is not None and node.GetAttribute(ATTRIBUTE) is not None


def assessmentOf(table) -> "Assessment":
    """What a table node holds. Raises the library's InputError when it is no such table, or a
    damaged one."""
    from GlideRegLib.assurance.records import Assessment
    from GlideRegLib.errors import GlideRegError, InputError

    text = table.GetAttribute(ATTRIBUTE) if table is not None else None
    if text is None:
        raise InputError("This table holds no assessment; choose one that Assess has made.")
    try:
        return Assessment.from_dict(json.loads(text))
    except (ValueError, KeyError, TypeError, GlideRegError) as error:
        raise InputError("The table of the assessment is damaged; assess again.") from error


def ranked(assessment: "Assessment") -> list["Measure"]:
    """All measures: the graded ones first, the worst on top, then the information in its order."""
    worst = {name: k for k, name in enumerate(assessment.ranked_structures())}
    graded = sorted(
        assessment.graded(),
        key=lambda m: (-m.verdict.severity, worst.get(m.region, -1)),
    )
    return graded + [m for m in assessment.measures if m not in graded]


def belonging(table, role: str):
    """A node that belongs to a table, or None."""
    node = table.GetNodeReference(role)
    return node if isInScene(node) else None


def place(assessment: "Assessment", measure: "Measure") -> tuple[float, float, float] | None:
    """Where to look for a measure, LPS mm in the fixed image: its own place, else that of the
    structure (where its surfaces are farthest apart, or its center), else None."""
    if measure.place is not None:
        return measure.place
    if measure.key == "folding":
        inside = [f for f in assessment.folds if "in the body" in f.why or measure.region == "grid"]
        return inside[0].place if inside else None
    if measure.key.startswith("structure_"):
        lowest = assessment.find("structure_jacobian_min", measure.region)
        return lowest.place if lowest is not None else None
    for key in ("mean_distance", "centroid_shift"):
        other = assessment.find(key, measure.region)
        if other is not None and other.place is not None:
            return other.place
    return _sibling(assessment, measure)


def _sibling(assessment: "Assessment", measure: "Measure") -> tuple[float, float, float] | None:
    """The worst place of measures of one kind: that of the maximum is that of the mean, too."""
    kind = measure.key.rpartition("_")[0]
    for other in assessment.measures:
        same = other.key.rpartition("_")[0] == kind and other.region == measure.region
        if same and kind and other.place is not None:
            return other.place
    return None


# --- nodes ----------------------------------------------------------------------------------------


def store(table, assessment: "Assessment", text: str) -> None:
    """Writes the assessment (and as ``text``, its JSON) into the table node."""
    with slicer.util.NodeModify(table):
        table.SetAttribute(ATTRIBUTE, text)
        table.SetAndObserveTable(_measures(assessment))
        table.SetLocked(True)
        table.SetDescription(NOTICE)
        table.Modified()


def _measures(assessment: "Assessment") -> vtk.vtkTable:
    rows = []
    for measure in ranked(assessment):
        rows.append(
            {
                "Measure": measure.title,
                "Structure": measure.region,
                "Value": measure.text,
                "Criterion": measure.criterion,
                "Verdict": measure.verdict.value,
                "Worst place (RAS mm)": _ras(place(assessment, measure)),
                "Remarks": measure.note,
            }
        )
    return _table(rows, ("Measure", "Structure", "Value", "Criterion", "Verdict"))


def motions(assessment: "Assessment") -> dict[str, tuple[list[float], list[float] | None]]:
    """Of every structure of the fixed image the mean displacement by the transform (L-R, A-P, S-I
    in mm, positive to the left, to the back and to the head), from the fixed to the moving scan;
    and the same from both contours (where they lie), None without a contour in each."""
    found = {}
    for name in assessment.structures():
        moved = [assessment.find(f"displacement_{axis}", name) for axis in AXES]
        if all(m is not None and m.value is not None for m in moved):
            seen = [assessment.find(f"centroid_{axis}", name) for axis in AXES]
            known = all(m is not None and m.before is not None for m in seen)
            found[name] = ([m.value for m in moved], [m.before for m in seen] if known else None)
    return found


def storeMotion(table, assessment: "Assessment") -> None:
    """Writes how structures moved into a table node of its own."""
    rows = []
    for name, (moved, seen) in motions(assessment).items():
        row = {"Structure": name}
        row.update(zip(_HEADERS, (f"{v:.2f}" for v in moved), strict=True))
        row["Length (mm)"] = f"{length(moved):.2f}"
        row["Centroids of the contours (mm)"] = "" if seen is None else f"{length(seen):.2f}"
        rows.append(row)
    with slicer.util.NodeModify(table):
        table.SetAndObserveTable(_table(rows, ("Structure", *_HEADERS)))
        table.SetLocked(True)
        table.SetDescription(f"Mean displacement from the fixed to the moving scan. {NOTICE}")
        table.Modified()


def length(vector) -> float:
    """Of a vector, in its unit."""
    return sum(v * v for v in vector) ** 0.5


def _table(rows: list[dict[str, str]], titles: tuple[str, ...]) -> vtk.vtkTable:
    table = vtk.vtkTable()
    for title in rows[0] if rows else titles:
        column = vtk.vtkStringArray()
        column.SetName(title)
        for row in rows:
            column.InsertNextValue(row[title])
        table.AddColumn(column)
    return table


def _ras(point) -> str:
    from GlideRegLib.geometry import flip_lps_ras

    return "" if point is None else " ".join(f"{v:.1f}" for v in flip_lps_ras(point))
