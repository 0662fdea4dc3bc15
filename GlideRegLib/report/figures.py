"""The pictures of a report, each as PNG bytes. No global state, no display needed."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from .planes import Plane

#: Colors that color-blind readers can tell apart.
BEFORE, AFTER = "#b3632a", "#1f6f8b"
_TILE_MM = 24.0
_LINES_MM = 12.0


def red_cyan(fixed: np.ndarray, moving: np.ndarray) -> np.ndarray:
    """Fixed in red, moving in cyan, both 0 to 1 (H, W): gray where they agree. (H, W, 3)."""
    return np.stack((fixed, moving, moving), axis=-1)


def checkerboard(fixed: np.ndarray, moving: np.ndarray, tile: tuple[int, int]) -> np.ndarray:
    """Tiles of ``tile`` (rows, columns) pixels in turn from both pictures (H, W), 0 to 1."""
    rows = np.arange(fixed.shape[0])[:, None] // tile[0]
    columns = np.arange(fixed.shape[1])[None] // tile[1]
    return np.where((rows + columns) % 2 == 0, fixed, moving)


def compare_figure(
    planes: Sequence[Plane],
    pictures: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    spacings: Sequence[float],
) -> bytes:
    """Three rows (planes) of: red-cyan before, red-cyan after, checkerboard, difference before and
    after. ``pictures``: fixed, moving before, warped (H, W) in 0 to 1; ``spacings``: width of a
    pixel in mm."""
    titles = (
        "red-cyan, before",
        "red-cyan, after",
        "checkerboard, after",
        "difference, before",
        "difference, after",
    )
    figure, axes = _grid_of_axes(len(planes), len(titles), titles)
    for row, (plane, (fixed, moving, warped), spacing) in enumerate(
        zip(planes, pictures, spacings, strict=True)
    ):
        width = max(2, round(_TILE_MM / spacing))
        height = max(2, round(_TILE_MM / spacing / plane.aspect))
        tiles = checkerboard(fixed, warped, (height, width))
        for column, picture in enumerate(
            (
                red_cyan(fixed, moving),
                red_cyan(fixed, warped),
                np.repeat(tiles[..., None], 3, axis=2),
            )
        ):
            _show(axes[row][column], plane, picture)
        for column, other in ((3, moving), (4, warped)):
            _show(axes[row][column], plane, other - fixed, cmap="RdBu_r", vmin=-0.7, vmax=0.7)
    return _png(figure)


def field_figure(
    planes: Sequence[Plane],
    warped: Sequence[np.ndarray],
    positions: Sequence[tuple[np.ndarray, np.ndarray]],
    jacobians: Sequence[np.ndarray],
) -> bytes:
    """Two rows of three planes: deformation grid over the warped image, and Jacobian map.

    ``positions`` hold, per plane, the in-plane coordinates (mm) along columns and rows at which
    each pixel lies in the moving frame, initial alignment removed: their iso-lines are the grid.
    """
    titles = tuple(plane.name for plane in planes)
    figure, axes = _grid_of_axes(2, len(planes), titles, bar=True)
    image = None
    for column, plane in enumerate(planes):
        _show(axes[0][column], plane, warped[column], cmap="gray", vmin=0, vmax=1)
        for coordinate in positions[column]:
            levels = np.arange(
                np.ceil(coordinate.min() / _LINES_MM) * _LINES_MM, coordinate.max(), _LINES_MM
            )
            if len(levels) > 1:
                axes[0][column].contour(
                    coordinate, levels=levels, colors="#f2c14e", linewidths=0.6, linestyles="solid"
                )
        logarithm = np.log2(np.clip(jacobians[column], 2**-2, 2**2))
        image = _show(axes[1][column], plane, logarithm, cmap="PuOr_r", vmin=-2, vmax=2)
        folded = jacobians[column] <= 0
        if folded.any():
            y, x = np.nonzero(folded)
            axes[1][column].plot(x, y, "s", color="#d1007a", markersize=2)
    bar = figure.colorbar(image, ax=axes[1], fraction=0.03, pad=0.01, ticks=range(-2, 3))
    bar.ax.set_yticklabels(["1/4 or less", "1/2", "1", "2", "4 or more"], fontsize=8)
    bar.set_label("Jacobian: shrinks - grows", fontsize=8)
    return _png(figure)


def landmark_figure(before: np.ndarray, after: np.ndarray) -> bytes:
    """Landmark errors (mm) before and after, sorted by the error after, and their distribution."""
    figure = Figure(figsize=(9.5, 2.8), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    order = np.argsort(after)
    left.plot(before[order], "o", markersize=3, color=BEFORE, label="before")
    left.plot(after[order], "o", markersize=3, color=AFTER, label="after")
    left.set(xlabel="landmark, sorted by the error after", ylabel="TRE, mm", yscale="symlog")
    left.set_ylim(bottom=0)
    for errors, color, label in ((before, BEFORE, "before"), (after, AFTER, "after")):
        ordered = np.sort(errors)
        share = 100 * np.arange(1, len(ordered) + 1) / len(ordered)
        right.step(ordered, share, where="post", color=color, label=label)
    right.set(xlabel="TRE, mm", ylabel="landmarks within, %", xscale="symlog", ylim=(0, 101))
    right.set_xlim(left=0)
    for axes in (left, right):
        axes.legend(frameon=False, fontsize=8)
        for axis in (axes.xaxis, axes.yaxis):
            if axis.get_scale() == "symlog":  # plain millimeters instead of powers of ten
                axis.set_major_locator(FixedLocator([0, 0.5, 1, 2, 5, 10, 20, 50, 100]))
                axis.set_major_formatter("{x:g}")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    return _png(figure)


def _grid_of_axes(
    rows: int, columns: int, titles: Sequence[str], bar: bool = False
) -> tuple[Figure, list[list]]:
    size = (2.3 * columns + (0.8 if bar else 0), 2.4 * rows)
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=9)
    return figure, axes


def _show(axes: object, plane: Plane, picture: np.ndarray, **how: object) -> object:
    """A picture with its letters, pixels in their true proportion."""
    if picture.ndim == 3:
        picture = np.clip(picture, 0, 1)
    image = axes.imshow(picture, aspect=plane.aspect, interpolation="nearest", **how)
    axes.set_axis_off()
    left, right, top, bottom = plane.letters
    style = {
        "transform": axes.transAxes,
        "color": "#ffd166",
        "fontsize": 7,
        "bbox": {"facecolor": "black", "alpha": 0.5, "pad": 0.8, "edgecolor": "none"},
    }
    axes.text(0.01, 0.5, left, ha="left", va="center", **style)
    axes.text(0.99, 0.5, right, ha="right", va="center", **style)
    axes.text(0.5, 0.99, top, ha="center", va="top", **style)
    axes.text(0.5, 0.01, bottom, ha="center", va="bottom", **style)
    return image


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    FigureCanvasAgg(figure).print_png(stream, metadata={"Software": "GlideReg"})
    return stream.getvalue()
