"""One sheet per nodule: prior, warped prior and current side by side in three planes.

Nine small pictures through one point, along the patient's own axes, sampled from the native images
(the middle column through the transform), all in the same window and at one scale. Display is
radiological: patient right at the left of axial and coronal pictures.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..volume import Volume
from .mapping import Mapping
from .nodules import Point
from .records import TrackRow

#: HU shown from black to white: the lung window of the report.
WINDOW_HU = (-1000.0, 400.0)
#: Plane -> LPS directions of the columns (to the right) and of the rows (down), and its letters at
#: the left, right, top and bottom.
_PLANES = {
    "axial": ((1, 0, 0), (0, 1, 0), ("R", "L", "A", "P")),
    "coronal": ((1, 0, 0), (0, 0, -1), ("R", "L", "S", "I")),
    "sagittal": ((0, 1, 0), (0, 0, -1), ("A", "P", "S", "I")),
}
#: Side of a picture in mm: at least this, and this many diameters.
_LEAST_MM, _DIAMETERS = 44.0, 3.0
#: Samples along a side, inches of a picture on the sheet, points per inch.
_SAMPLES, _INCHES, _DPI = 168, 2.45, 100
#: Pixels between two places at which a transform is asked.
_COARSER = 8
_INK, _MARK, _CROSS = "#1c2b33", "#ffffff", "#ffd24a"
_MISSING, _OUTLINE = "#41506b", "#62d84e"


@dataclass(frozen=True)
class _Column:
    """One column: its title, the LPS point in the middle, where its samples lie in ``volume``, a
    point to mark, and voxels of the volume to draw an outline around."""

    title: str
    center: Point | None
    volume: Volume
    through: Callable[[np.ndarray], np.ndarray] | None
    dot: Point | None = None
    mask: Volume | None = None


def nodule_sheet(
    row: TrackRow,
    mapping: Mapping,
    fixed: Volume,
    moving: Volume,
    number: int,
    window: tuple[float, float] = WINDOW_HU,
) -> bytes:
    """The sheet of one row as a JPEG; ``number`` is that of the row in the table, from 1.
    ``window`` are the values shown black and white, HU for CT.

    The crosshair marks the middle of each picture: the prior nodule as it was marked (else where
    the field puts it), the predicted position in the warped prior and in the current image; a ring
    marks the current nodule as it was marked, a green line the voxels that were measured. Parts
    that an image does not show are blue-gray.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    columns = _columns(row, mapping, fixed, moving)
    side = _side_mm(row)
    width, height = 3 * _INCHES + 0.32, 3 * _INCHES + 1.14
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    for i, plane in enumerate(_PLANES):
        bottom = height - 0.86 - (i + 1) * _INCHES
        figure.text(0.1 / width, (bottom + _INCHES / 2) / height, plane, rotation=90, va="center")
        for j, column in enumerate(columns):
            box = (0.3 + j * _INCHES, bottom, _INCHES - 0.04, _INCHES - 0.04)
            axes = figure.add_axes(
                (box[0] / width, box[1] / height, box[2] / width, box[3] / height)
            )
            _draw(axes, plane, column, side, window)
            if i == 0:
                place = ((box[0] + 0.02) / width, (height - 0.82) / height)
                figure.text(*place, column.title, fontsize=9, color=_INK)
    _write_texts(figure, row, number, (width, height), window)
    canvas.draw()
    stream = io.BytesIO()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    Image.fromarray(pixels).save(stream, "JPEG", quality=85, subsampling=0, optimize=True)
    return stream.getvalue()


def _columns(
    row: TrackRow, mapping: Mapping, fixed: Volume, moving: Volume
) -> tuple[_Column, _Column, _Column]:
    middle = row.predicted_position or row.fixed_center
    how = "as marked" if row.moving_center is not None else "by the field"
    mapped = mapping.transform_points
    return (
        _Column(f"prior, {how}", row.moving_position, moving, None, mask=row.moving_mask),
        _Column("prior, warped", middle, moving, mapped, mask=row.moving_mask),
        _Column("current", middle, fixed, None, row.fixed_center, row.fixed_mask),
    )


def _side_mm(row: TrackRow) -> float:
    """Side of the pictures: the larger of both nodules with what is around it."""
    measured = [m for m in (row.moving_measurement, row.fixed_measurement) if m is not None]
    largest = max((m.long_diameter_mm for m in measured), default=0.0)
    return max(_LEAST_MM, _DIAMETERS * largest)


def _draw(
    axes: object, plane: str, column: _Column, side: float, window: tuple[float, float]
) -> None:
    """One picture with crosshair, letters and scale; axes in mm, 0 in the middle, y down."""
    right, down, letters = _PLANES[plane]
    half = side / 2
    axes.set(xlim=(-half, half), ylim=(half, -half), xticks=[], yticks=[], facecolor=_MISSING)
    axes.spines[:].set_visible(False)
    if column.center is None:
        axes.text(0, 0, "not there", ha="center", va="center", color=_MARK, fontsize=9)
        return
    places = _places(column, side, np.array(right, float), np.array(down, float))
    axes.imshow(
        _picture(column.volume, places),
        cmap="gray",
        vmin=window[0],
        vmax=window[1],
        extent=(-half, half, half, -half),
        interpolation="bilinear",
    )
    if column.mask is not None:
        _draw_outline(axes, column.mask, places, half)
    # The middle stays free: the crosshair must not hide a small nodule.
    for a, b in ((-half, -0.28 * side), (0.28 * side, half)):
        axes.plot([a, b], [0, 0], color=_CROSS, linewidth=0.7, alpha=0.8)
        axes.plot([0, 0], [a, b], color=_CROSS, linewidth=0.7, alpha=0.8)
    if column.dot is not None:
        shift = np.asarray(column.dot) - np.asarray(column.center)
        x, y = shift @ np.array(right, float), shift @ np.array(down, float)
        axes.plot([x], [y], "o", markersize=5, markerfacecolor="none", color="#7ee2ff", mew=1.0)
    _write_letters(axes, letters, half)
    if plane == "axial":
        axes.plot([-0.92 * half, -0.92 * half + 10], [0.9 * half] * 2, color=_MARK, linewidth=2)
        axes.text(-0.92 * half, 0.84 * half, "10 mm", color=_MARK, fontsize=7, va="bottom")


def _places(column: _Column, side: float, right: np.ndarray, down: np.ndarray) -> np.ndarray:
    """LPS points (rows, columns, 3) in the column's volume for a square of ``side`` mm along two
    LPS directions."""
    # A transform is smooth: it is asked at every few pixels, and interpolated between them.
    count = _SAMPLES if column.through is None else _SAMPLES // _COARSER
    steps = (np.arange(count) + 0.5) / count * side - side / 2
    offsets = steps[None, :, None] * right + steps[:, None, None] * down
    places = np.asarray(column.center) + offsets
    if column.through is not None:
        coarse = column.through(places.reshape(-1, 3)).reshape(count, count, 3)
        between = (np.indices((_SAMPLES, _SAMPLES)) + 0.5) / _COARSER - 0.5
        places = np.stack([_extended(coarse[..., k], between) for k in range(3)], axis=-1)
    return places


def _picture(volume: Volume, places: np.ndarray) -> np.ndarray:
    """HU (rows, columns) at LPS points (rows, columns, 3), masked where the image has no data."""
    from scipy import ndimage

    flat = places.reshape(-1, 3)
    index = volume.grid.to_index(flat)[:, ::-1].T
    values = ndimage.map_coordinates(
        volume.array, index, order=1, mode="nearest", output=np.float32
    )
    inside = volume.grid.contains(flat)
    return np.ma.masked_array(values, ~inside).reshape(places.shape[:2])


def _draw_outline(axes: object, mask: Volume, places: np.ndarray, half: float) -> None:
    """A line around the voxels of a mask, where they are at LPS points (rows, columns, 3)."""
    from scipy import ndimage

    index = mask.grid.to_index(places.reshape(-1, 3))[:, ::-1].T
    inside = ndimage.map_coordinates(mask.array, index, order=1, cval=0.0, output=np.float32)
    steps = (np.arange(_SAMPLES) + 0.5) / _SAMPLES * 2 * half - half
    if inside.max() > 0.5:
        shape = places.shape[:2]
        axes.contour(steps, steps, inside.reshape(shape), [0.5], colors=_OUTLINE, linewidths=1.0)


def _extended(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    """values (n, n) at continuous indices (2, rows, columns), linear also beyond the border."""
    from scipy import ndimage

    padded = np.pad(values, 1, mode="reflect", reflect_type="odd")
    return ndimage.map_coordinates(padded, index + 1, order=1, mode="nearest")


def _write_letters(axes: object, letters: tuple[str, str, str, str], half: float) -> None:
    from matplotlib.patheffects import withStroke

    style = {
        "color": _MARK,
        "fontsize": 8,
        "fontweight": "bold",
        "path_effects": [withStroke(linewidth=2, foreground="black")],
    }
    edge = 0.95 * half
    left, right, top, bottom = letters
    axes.text(-edge, 0, left, ha="left", va="center", **style)
    axes.text(edge, 0, right, ha="right", va="center", **style)
    axes.text(0, -edge, top, ha="center", va="top", **style)
    axes.text(0, edge, bottom, ha="center", va="bottom", **style)


def _write_texts(
    figure: object,
    row: TrackRow,
    number: int,
    size: tuple[float, float],
    window: tuple[float, float],
) -> None:
    """Title and facts above, window and notice below; ``size`` of the sheet in inches."""
    from ..result import NOTICE

    width, height = size
    low, high = window
    unit = " HU" if window == WINDOW_HU else ""
    shown = f"Shown: {low:.0f} to {high:.0f}{unit}."
    figure.text(
        0.3 / width,
        (height - 0.26) / height,
        f"Nodule {number}: {row.state}",
        fontsize=12,
        fontweight="bold",
        color=_INK,
    )
    figure.text(0.3 / width, (height - 0.5) / height, _facts(row), fontsize=8.5, color=_INK)
    figure.text(
        0.3 / width,
        0.1 / height,
        f"{shown} Native images are measured, never the warped one. {NOTICE}",
        fontsize=7.5,
        color=_INK,
    )


def _facts(row: TrackRow) -> str:
    """Distance, volumes and change on one line."""
    facts = []
    if row.distance_mm is not None:
        facts.append(f"{row.distance_mm:.1f} mm from the predicted place")
    if row.uncertainty_mm is not None:
        facts.append(f"field uncertain by {row.uncertainty_mm:.1f} mm")
    for side, found in (("prior", row.moving_measurement), ("current", row.fixed_measurement)):
        if found is not None:
            facts.append(f"{side} {found.volume_mm3:.0f} mm³")
    if row.growth is not None:
        facts.append(f"change {row.growth.volume_change_text} %")
    return "   ".join(facts) or "no measurement"
