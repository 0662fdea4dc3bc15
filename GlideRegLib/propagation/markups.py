"""Points, lines, curves and ROIs of landmark and markups files.

A ``.mrk.json`` keeps everything that is not a place: kinds, labels, order of control points,
colors, all markups of the file. Other landmark files are read and written by ``landmarks.py``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..geometry import Grid, flip_lps_ras
from ..landmarks import read_landmarks, write_landmarks

#: LPS points (N, 3) to where they lie in the other image.
Push = Callable[[np.ndarray], np.ndarray]

_POINTS_ONLY = {"Fiducial", "Line", "Angle", "Curve", "ClosedCurve"}
_MM_PER_UNIT = {"mm": 1.0, "um": 1e-3}


def carry_points(
    source: Path, output: Path, push: Push, grid: Grid | None = None
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Writes the points of a file where they lie in the other image.

    ``grid`` is that of the source image (elastix index files need it). Returns the points (N, 3)
    before and after, LPS mm, and notes on what the file left open. Raises :class:`InputError` for
    files that are unfit, and for planes, which do not stay planes.
    """
    if source.name.lower().endswith(".json"):
        return _carry_markups(source, output, push)
    landmarks = read_landmarks(source, grid)
    moved = push(landmarks.points)
    write_landmarks(output, moved, landmarks.labels)
    return landmarks.points, moved, landmarks.notes


def _carry_markups(
    source: Path, output: Path, push: Push
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    content = _read_json(source)
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for number, markup in enumerate(content["markups"], start=1):
        kind = str(markup.get("type", "Fiducial"))
        if kind not in _POINTS_ONLY | {"ROI"}:
            raise InputError(
                f"Markup {number} of '{source}' is a {kind}; points, lines, angles, curves and "
                "ROIs can be carried."
            )
        frame = _Frame.of(markup, source)
        found.append(_carry_control_points(markup, frame, push, source))
        if kind == "ROI" and markup.get("center") is not None:
            _carry_box(markup, frame, push, source)
        markup["measurements"] = []  # lengths and angles of the old place
    before, after = (np.concatenate(side) for side in zip(*found, strict=True))
    if len(before) == 0:
        raise InputError(f"'{source}' holds no placed points.")
    output.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return before, after, []


def _read_json(path: Path) -> dict:
    """The content of a markups file. Raises :class:`InputError` when it is none."""
    if not path.is_file():
        raise InputError(f"The markups file '{path}' does not exist; check the path.")
    try:
        content = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (UnicodeDecodeError, ValueError) as error:
        raise InputError(f"'{path}' is not valid JSON; it may be cut short.") from error
    markups = content.get("markups") if isinstance(content, dict) else None
    if (
        not isinstance(markups, list)
        or not markups
        or not all(isinstance(m, dict) for m in markups)
    ):
        raise InputError(f"'{path}' holds no 3D Slicer markups.")
    return content


class _Frame:
    """The frame and the unit that a markup states, and the way from there to LPS mm and back."""

    def __init__(self, frame: str, millimeters: float) -> None:
        self._ras, self._mm = frame == "RAS", millimeters

    @classmethod
    def of(cls, markup: dict, path: Path) -> _Frame:
        # Older files write numbers: 0 for RAS, 1 for LPS.
        stated = str(markup.get("coordinateSystem", "LPS")).upper()
        stated = {"0": "RAS", "1": "LPS"}.get(stated, stated)
        unit = markup.get("coordinateUnits", "mm")
        unit = unit[0] if isinstance(unit, list) and unit else unit
        if stated not in ("LPS", "RAS") or unit not in _MM_PER_UNIT:
            raise InputError(
                f"'{path}' states the frame '{stated}' in '{unit}'; LPS or RAS in mm fit."
            )
        return cls(stated, _MM_PER_UNIT[unit])

    def turned(self, vectors: np.ndarray) -> np.ndarray:
        """Directions (N, 3) from the file's frame to LPS, or back."""
        return flip_lps_ras(vectors) if self._ras else vectors

    def to_lps(self, values: np.ndarray) -> np.ndarray:
        return self.turned(np.asarray(values, dtype=float) * self._mm)

    def from_lps(self, points: np.ndarray) -> np.ndarray:
        return self.turned(np.asarray(points)) / self._mm

    def length(self, millimeters: np.ndarray) -> np.ndarray:
        return millimeters / self._mm

    def millimeters(self, lengths: np.ndarray) -> np.ndarray:
        return lengths * self._mm


def _numbers(value: object, count: int, path: Path, what: str) -> np.ndarray:
    try:
        array = np.asarray(value, dtype=float).ravel()
    except (TypeError, ValueError):
        array = np.array([np.nan])
    if array.shape != (count,) or not np.isfinite(array).all():
        raise InputError(f"'{path}', {what}: {count} finite numbers are expected.")
    return array


def _carry_control_points(
    markup: dict, frame: _Frame, push: Push, path: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Moves the control points of one markup in place; returns them before and after, LPS mm."""
    # Points that were never placed have no position, and stay so.
    placed = [
        item
        for item in markup.get("controlPoints") or []
        if isinstance(item, dict)
        and item.get("positionStatus", "defined") == "defined"
        and item.get("position") is not None
    ]
    positions = [
        _numbers(item["position"], 3, path, f"control point {number}")
        for number, item in enumerate(placed, start=1)
    ]
    before = frame.to_lps(np.array(positions).reshape(-1, 3))
    after = push(before)
    for item, position in zip(placed, frame.from_lps(after), strict=True):
        item["position"] = [float(v) for v in position]
    return before, after


def _carry_box(markup: dict, frame: _Frame, push: Push, path: Path) -> None:
    """Moves a box ROI in place: see :func:`carried_box`."""
    identity = [1, 0, 0, 0, 1, 0, 0, 0, 1]
    center = frame.to_lps(_numbers(markup["center"], 3, path, "center")[None])[0]
    axes = _numbers(markup.get("orientation", identity), 9, path, "orientation").reshape(3, 3)
    size = frame.millimeters(_numbers(markup.get("size"), 3, path, "size"))
    center, axes, size = carried_box(center, frame.turned(axes.T).T, size, push)
    markup["center"] = [float(v) for v in frame.from_lps(center[None])[0]]
    markup["size"] = [float(v) for v in frame.length(size)]
    markup["orientation"] = [float(v) for v in frame.turned(axes.T).T.ravel()]
    if len(markup.get("controlPoints") or []) == 1:  # a box keeps its center as its one point
        markup["controlPoints"][0]["position"] = markup["center"]


def carried_box(
    center: np.ndarray, axes: np.ndarray, size: np.ndarray, push: Push
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Center (3,), axes (3, 3, in the columns) and size (3,) of the box, turned with the tissue,
    that holds all of a carried one; LPS mm.

    A bent box is no box: 5 points along each axis are carried, the turn is that of their best
    affine map, and the sizes are such that all of them lie inside.
    """
    steps = np.stack(np.meshgrid(*[np.linspace(-0.5, 0.5, 5)] * 3, indexing="ij"), axis=-1)
    local = steps.reshape(-1, 3) * size
    moved = push(center + local @ axes.T)
    gradient = np.linalg.lstsq(local, moved - moved.mean(axis=0), rcond=None)[0].T
    flat = size <= 0  # tells nothing about this direction
    gradient[:, flat] = axes[:, flat]
    left, _, right = np.linalg.svd(gradient)
    handedness = np.sign(np.linalg.det(axes)) * np.sign(np.linalg.det(left @ right))
    turned = left @ np.diag([1, 1, handedness]) @ right
    inside = moved @ turned
    low, high = inside.min(axis=0), inside.max(axis=0)
    return turned @ ((low + high) / 2), turned, high - low
