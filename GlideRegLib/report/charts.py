"""Charts of a report as PNG bytes: landmark errors, and the distribution of the Jacobian."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from .figures import AFTER, BEFORE
from .sheet import INK

_DPI = 150
_TYPE = 8.5
_MILLIMETERS = (0, 0.5, 1, 2, 5, 10, 20, 50, 100, 200)
#: Octaves that the histogram covers.
_OCTAVES = 3
#: Up to so many landmarks, before and after are joined by a line.
_LINKED = 100


def landmark_chart(before: np.ndarray, after: np.ndarray) -> bytes:
    """Landmark errors (N,) in mm: sorted by the error after, and the share within a distance."""
    figure = Figure(figsize=(10.4, 3.3), dpi=_DPI, layout="constrained")
    left, right = figure.subplots(1, 2)
    order = np.argsort(after, kind="stable")
    rank = np.arange(1, len(order) + 1)
    if len(rank) <= _LINKED:
        left.vlines(rank, after[order], before[order], color="#cfd8dc", linewidth=0.8, zorder=1)
    for values, color, marker, label in (
        (before, BEFORE, "D", "before"),
        (after, AFTER, "o", "after"),
    ):
        left.plot(rank, values[order], marker, markersize=3.4, color=color, label=label)
        ordered = np.concatenate(([0.0], np.sort(values)))
        share = 100 * np.arange(len(ordered)) / len(values)
        style = "--" if label == "before" else "-"
        right.step(ordered, share, style, where="post", color=color, label=label, linewidth=1.8)
    left.set_xlabel("landmark, sorted by the error after", fontsize=_TYPE)
    left.set_ylabel("TRE, mm", fontsize=_TYPE)
    right.set_xlabel("TRE, mm", fontsize=_TYPE)
    right.set_ylabel("landmarks within this distance, %", fontsize=_TYPE)
    top = 1.25 * max(float(before.max()), float(after.max()), 1.0)
    left.set_yscale("symlog", linthresh=1)
    right.set_xscale("symlog", linthresh=1)
    left.set_ylim(0, top)
    right.set(xlim=(0, top), ylim=(0, 101))
    for axes, axis in ((left, left.yaxis), (right, right.xaxis)):
        _plain(axes)
        # Plain millimeters instead of powers of ten.
        axis.set_major_locator(FixedLocator([v for v in _MILLIMETERS if v <= top]))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter("{x:g}")
        axes.legend(frameon=False, fontsize=_TYPE)
    return _png(figure)


def jacobian_chart(values: np.ndarray) -> bytes:
    """Histogram of Jacobian determinants (N,) of the body on a logarithmic axis around 1.

    What is folded or beyond the axis is counted in the outermost bars.
    """
    figure = Figure(figsize=(10.4, 2.5), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    octaves = np.log2(np.clip(values, 2.0**-_OCTAVES, 2.0**_OCTAVES))
    edges = np.linspace(-_OCTAVES, _OCTAVES, 97)
    counts, _ = np.histogram(octaves, edges)
    share = 100 * counts / max(len(values), 1)
    axes.bar(edges[:-1], share, width=np.diff(edges), align="edge", color=AFTER)
    axes.axvline(0, color=INK, linewidth=0.9, linestyle="--")
    axes.set_xlim(-_OCTAVES, _OCTAVES)
    ticks = np.arange(-_OCTAVES, _OCTAVES + 1)
    labels = [f"{2.0**k:g}" if k >= 0 else f"1/{2**-k}" for k in ticks.tolist()]
    labels[0], labels[-1] = labels[0] + "\nor less, or folded", labels[-1] + "\nor more"
    axes.set_xticks(ticks, labels)
    axes.set_xlabel("Jacobian (1: no change of volume)", fontsize=_TYPE)
    axes.set_ylabel("share of the body, %", fontsize=_TYPE)
    _plain(axes)
    return _png(figure)


def _plain(axes: Axes) -> None:
    axes.tick_params(labelsize=_TYPE, color="#90a4ae", labelcolor=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#90a4ae")
    axes.grid(color="#e3e9ec", linewidth=0.7)
    axes.set_axisbelow(True)


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    FigureCanvasAgg(figure).print_png(stream, metadata={"Software": "GlideReg"})
    return stream.getvalue()
