"""A sheet of pictures in true proportion: rows of views, one column for each plane.

matplotlib's object interface with the Agg canvas only: no global state, no display, any thread.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from PIL import Image

from .views import PlaneView

#: Pixels of the widest sheet, of the tallest row, of the gaps and the captions above a row.
_WIDTH, _ROW, _GAP, _CAPTION = 1640, 680, 8, 34
#: Extra height for color bars.
_BAR = 84
#: Points per inch such that one point of type is one and a half pixels.
_DPI = 108
INK, PAPER, MARK = "#1c2b33", "#ffffff", "#ffffff"
#: What fills cells that a light picture does not fill.
VOID = "#eef2f4"

#: JPEG qualities that are tried until a sheet is small enough.
_QUALITIES = (88, 80, 70, 55, 40)
_MAX_BYTES = 620_000


class Sheet:
    """Cells of ``rows`` x planes, all at one scale (pixels per mm), black where nothing is."""

    def __init__(self, views: Sequence[PlaneView], rows: int, bar: bool = False) -> None:
        self._views, self._rows = views, rows
        sizes = [view.size_mm for view in views]
        total, tallest = sum(w for w, _ in sizes), max(h for _, h in sizes)
        free = _WIDTH - _GAP * (len(views) - 1)
        self._scale = min(free / total, _ROW / tallest)
        self._row = tallest * self._scale
        self.width = round(total * self._scale + _GAP * (len(views) - 1))
        self.height = round(rows * (self._row + _CAPTION) + (_BAR if bar else 0))
        size = (self.width / _DPI, self.height / _DPI)
        self.figure = Figure(figsize=size, dpi=_DPI, facecolor=PAPER)
        self._canvas = FigureCanvasAgg(self.figure)

    def cell(self, row: int, column: int, title: str, void: str = "black") -> Axes:
        """Axes in mm (x to the right, y down, 0 at the picture's upper left corner).

        ``void`` fills what the picture leaves free."""
        widths = [view.size_mm[0] * self._scale for view in self._views]
        left = sum(widths[:column]) + _GAP * column
        top = row * (self._row + _CAPTION)
        box = (
            left / self.width,
            1 - (top + _CAPTION + self._row) / self.height,
            widths[column] / self.width,
            self._row / self.height,
        )
        axes = self.figure.add_axes(box, facecolor=void)
        width, height = self._views[column].size_mm
        # A plane that is less high than its row stands in the middle of it.
        free = (self._row / self._scale - height) / 2
        axes.set(xlim=(0, width), ylim=(height + free, -free), xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        self.figure.text(
            (left + 2) / self.width,
            1 - (top + _CAPTION - 9) / self.height,
            title,
            color=INK,
            fontsize=11,
            va="baseline",
        )
        return axes

    def show(self, axes: Axes, column: int, picture: np.ndarray, smooth: bool = True) -> None:
        """An RGB picture (rows, columns, 3) in 0 to 1 with its letters and a scale bar."""
        view = self._views[column]
        width, height = view.size_mm
        axes.imshow(
            np.clip(picture, 0, 1),
            extent=(0, width, height, 0),
            aspect="auto",
            interpolation="bicubic" if smooth else "nearest",
        )
        style = {
            "color": MARK,
            "fontsize": 10.5,
            "fontweight": "bold",
            "path_effects": [withStroke(linewidth=2.2, foreground="black")],
        }
        left, right, top, bottom = view.plane.letters
        edge = 7 / self._scale
        axes.text(edge, height / 2, left, ha="left", va="center", **style)
        axes.text(width - edge, height / 2, right, ha="right", va="center", **style)
        axes.text(width / 2, edge, top, ha="center", va="top", **style)
        axes.text(width / 2, height - edge, bottom, ha="center", va="bottom", **style)
        if column == 0:
            self._scale_bar(axes, width, height, style)

    def _scale_bar(self, axes: Axes, width: float, height: float, style: dict) -> None:
        """A bar of about a quarter of the picture's width, lower left."""
        length = next((n for n in (100, 50, 20, 10, 5) if n <= 0.35 * width), 2)
        x, y = 0.04 * width, height - 14 / self._scale
        stroke = [withStroke(linewidth=4, foreground="black")]
        axes.plot([x, x + length], [y, y], color=MARK, linewidth=2, path_effects=stroke)
        style = {**style, "fontsize": 9.5}
        axes.text(x, y - 6 / self._scale, f"{length} mm", ha="left", va="bottom", **style)

    def bar(self, colors: ScalarMappable, label: str, ticks: dict[float, str]) -> None:
        """A color bar along the bottom; ``ticks`` are values and what is written there."""
        width = min(0.6, 760 / self.width)
        box = ((1 - width) / 2, 58 / self.height, width, 14 / self.height)
        bar = self.figure.colorbar(
            colors, cax=self.figure.add_axes(box), orientation="horizontal", ticks=list(ticks)
        )
        bar.ax.set_xticklabels(list(ticks.values()), fontsize=10, color=INK)
        bar.set_label(label, fontsize=10, color=INK, labelpad=3)
        bar.outline.set_linewidth(0.6)

    def jpegs(self) -> list[bytes]:
        """The rows of the sheet as JPEGs, as good as fits, colors at full resolution.

        Rows are images of their own so that a printed page can end between them; the last one
        holds the color bar.
        """
        self._canvas.draw()
        pixels = np.asarray(self._canvas.buffer_rgba())[..., :3]
        step = self._row + _CAPTION
        ends = [round(step * row) for row in range(self._rows)] + [pixels.shape[0]]
        bands = [Image.fromarray(pixels[a:b].copy()) for a, b in pairwise(ends)]
        for quality in _QUALITIES:
            found = [_encode(band, quality) for band in bands]
            if sum(map(len, found)) <= _MAX_BYTES:
                break
        return found


def _encode(image: Image.Image, quality: int) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality, subsampling=0, optimize=True)
    return stream.getvalue()
