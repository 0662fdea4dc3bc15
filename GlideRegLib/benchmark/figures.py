"""Box plots and cumulative curves of the landmark errors as PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from . import statistics as st

_DPI = 150
_TYPE = 8.5
_MILLIMETERS = (0, 0.5, 1, 2, 5, 10, 20, 50, 100)
#: Okabe and Ito's colors, which most people can tell apart; then other line styles.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999933")
_STYLES = ("-", "--", ":")


def box_plots(records: Sequence[dict], kind: str = "landmarks") -> bytes | None:
    """Errors of all points of a data set, a box per method; None when there are no points.

    Boxes: quartiles and median; whiskers: 5th and 95th percentile; diamonds: the mean.
    """
    return _drawn(records, kind, _boxes, "TRE, mm")


def cumulative_curves(records: Sequence[dict], kind: str = "landmarks") -> bytes | None:
    """Percent of all points of a data set within a distance, a curve per method."""
    return _drawn(records, kind, _curves, "points within this distance, %")


def _drawn(records: Sequence[dict], kind: str, draw: object, label: str) -> bytes | None:
    methods = st.in_order(records, "method")
    found = {}
    for dataset in st.in_order(records, "dataset_name"):
        errors = {m: st.pooled_errors(records, dataset, m, kind) for m in methods}
        errors = {m: values for m, values in errors.items() if len(values)}
        if errors:
            found[dataset] = errors
    if not found:
        return None
    columns = min(len(found), 2)
    rows = -(-len(found) // columns)
    size = (5.2 * columns, 3.6 * rows)
    figure = Figure(figsize=size, dpi=_DPI, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (dataset, errors) in zip(panels, found.items(), strict=False):
        shown = zip(errors, names_of(records, dataset, list(errors)), strict=True)
        draw(axes, errors, {m: k for k, m in enumerate(methods)}, dict(shown))
        axes.set_title(title_of(records, dataset, errors), fontsize=_TYPE + 1)
        axes.set_ylabel(label, fontsize=_TYPE)
        axes.tick_params(labelsize=_TYPE)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e3e9ec", linewidth=0.7)
        axes.set_axisbelow(True)
    for axes in panels[len(found) :]:
        axes.set_visible(False)
    stream = io.BytesIO()
    FigureCanvasAgg(figure).print_png(stream, metadata={"Software": "GlideReg"})
    return stream.getvalue()


def names_of(records: Sequence[dict], dataset: str, methods: Sequence[str]) -> list[str]:
    """What the methods are called in a panel, with the number of their failed runs."""
    return [method + st.failed_note(records, dataset, method) for method in methods]


def title_of(records: Sequence[dict], dataset: str, errors: dict[str, np.ndarray]) -> str:
    """The data set with its number of points, and the methods that failed on every pair of it."""
    absent = [m for m in st.in_order(records, "method") if m not in errors]
    counts = {method: st.failures(records, dataset, method) for method in absent}
    failed = [method for method, (bad, runs) in counts.items() if bad and bad == runs]
    title = f"{dataset} (n = {max(map(len, errors.values()))})"
    return title + (f"\nall failed: {', '.join(failed)}" if failed else "")


def _boxes(
    axes: Axes, errors: dict[str, np.ndarray], places: dict[str, int], names: dict[str, str]
) -> None:
    parts = axes.boxplot(
        list(errors.values()),
        whis=(5, 95),
        showfliers=False,
        showmeans=True,
        patch_artist=True,
        meanprops={"marker": "D", "markersize": 4, "markerfacecolor": "w", "markeredgecolor": "k"},
        medianprops={"color": "k"},
    )
    for box, name in zip(parts["boxes"], errors, strict=True):
        box.set(facecolor=_COLORS[places[name] % len(_COLORS)], alpha=0.75)
    shown = [names[method] for method in errors]
    axes.set_xticks(range(1, len(shown) + 1), shown, rotation=30, ha="right", fontsize=_TYPE)
    highest = max(float(np.percentile(values, 95)) for values in errors.values())
    axes.set_yscale("symlog", linthresh=1)
    _millimeters(axes.yaxis, highest)
    axes.set_ylim(0, 1.2 * max(highest, 1.0))


def _curves(
    axes: Axes, errors: dict[str, np.ndarray], places: dict[str, int], names: dict[str, str]
) -> None:
    highest = max(float(values.max()) for values in errors.values())
    for name, values in errors.items():
        ordered = np.concatenate(([0.0], np.sort(values), [2 * highest]))
        share = 100 * np.minimum(np.arange(len(ordered)), len(values)) / len(values)
        place = places[name]
        axes.step(
            ordered,
            share,
            _STYLES[place // len(_COLORS) % len(_STYLES)],
            where="post",
            color=_COLORS[place % len(_COLORS)],
            label=names[name],
            linewidth=1.6,
        )
    axes.set_xscale("symlog", linthresh=1)
    _millimeters(axes.xaxis, highest)
    axes.set(xlim=(0, 1.1 * max(highest, 1.0)), ylim=(0, 101))
    axes.set_xlabel("TRE, mm", fontsize=_TYPE)
    axes.legend(frameon=False, fontsize=_TYPE - 1)


def _millimeters(axis: object, highest: float) -> None:
    """Plain millimeters instead of powers of ten."""
    axis.set_major_locator(FixedLocator([v for v in _MILLIMETERS if v <= 1.2 * max(highest, 1)]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter("{x:g}")
