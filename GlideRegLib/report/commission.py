"""The page of a commissioning run: verdicts, tables, error maps, and what the test cannot show."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from ..assurance.records import Assessment
from ..commission.cases import KnownCase
from ..commission.measures import AIR_HU
from ..result import NOTICE
from . import _embed, page_template
from .assurance import page_words
from .content import number
from .figures import red_cyan
from .planes import LUNG_WINDOW, PLANES, Plane, plane_through
from .sheet import INK, Sheet
from .views import _crop, sample

#: Errors below this share of the color scale let the image shine through.
_FAINT = 0.1
_CURVES = ("#1f6f8b", "#b3632a", "#6a4c93", "#3f7d3a")


@dataclass(frozen=True)
class ErrorView:
    """One plane: the fixed and the unmoved moving image, 0 to 1, and the errors in mm, nan where
    they do not count; all (rows, columns)."""

    plane: Plane
    fixed: np.ndarray
    before: np.ndarray
    errors: np.ndarray

    @property
    def size_mm(self) -> tuple[float, float]:
        """Width and height of the picture."""
        rows, columns = self.fixed.shape
        return columns * self.plane.pixel_mm[0], rows * self.plane.pixel_mm[1]


def case_pictures(case: KnownCase, errors: np.ndarray, largest_mm: float) -> list[bytes]:
    """JPEG rows: the known motion in red and cyan, and the error map, in three planes through
    :func:`shown_point`. ``errors`` (Z, Y, X) are in mm, negative where they do not count."""
    grid = case.fixed.grid
    point = grid.to_physical(shown_point(errors)[None, ::-1].astype(float))[0]
    views = [_view(plane_through(grid, name, point), case, errors) for name in PLANES]
    sheet = Sheet(views, 2, bar=True)
    colors = ScalarMappable(Normalize(0, largest_mm), colormaps["inferno"])
    for column, view in enumerate(views):
        name = view.plane.name.capitalize()
        axes = sheet.cell(0, column, f"{name}, fixed and moving as they stand")
        sheet.show(axes, column, red_cyan(view.fixed, view.before))
        axes = sheet.cell(1, column, f"{name}, error")
        sheet.show(axes, column, _error_colors(view, colors, largest_mm), smooth=False)
    ticks = {k * largest_mm / 5: f"{k * largest_mm / 5:g}" for k in range(5)}
    ticks[largest_mm] = f"{largest_mm:g} or more"
    sheet.bar(colors, "distance from the true place, mm", ticks)
    return sheet.jpegs()


def shown_point(errors: np.ndarray) -> np.ndarray:
    """Along each axis (z, y, x) the slice whose errors add up to most, in the middle 60 percent of
    the body: the single worst voxel often lies at the skin, where two of three planes show nothing.
    """
    chosen = []
    counted = errors >= 0
    for axis in range(3):
        others = tuple(k for k in range(3) if k != axis)
        profile = errors.sum(axis=others, dtype=float, where=counted)
        hit = np.flatnonzero(counted.any(axis=others))
        low, high = (int(hit[0]), int(hit[-1])) if len(hit) else (0, len(profile) - 1)
        rim = int(0.2 * (high - low + 1))
        chosen.append(low + rim + int(profile[low + rim : high + 1 - rim].argmax()))
    return np.array(chosen)


def commission_page(report: dict, pictures: Sequence[list[bytes]]) -> str:
    """The page as HTML text; it loads nothing from anywhere and names no file and no patient.

    ``pictures`` holds the rows of :func:`case_pictures` for each case of the report.
    """
    cases = [
        {
            "name": case["name"],
            "description": case["description"],
            "verdict": case["verdict"],
            "criteria": case["criteria"],
            "regions": _region_rows(case),
            "motions": _motion_rows(case),
            "tre": _tre_row(case),
            "facts": _facts(case),
            "pictures": _embed(rows),
            "quality": page_words(Assessment.from_dict(case["assessment"])),
            "worst": ", ".join(f"{v:.1f}" for v in case["worst_point_lps_mm"]["body"] or []),
        }
        for case, rows in zip(report["cases"], pictures, strict=True)
    ]
    return page_template("commission.html.j2").render(
        notice=NOTICE,
        verdict=report["verdict"],
        limits=report["limits"],
        limits_note=report["limits_note"],
        air_hu=AIR_HU,
        cases=cases,
        not_run=report["not_run"],
        curves=_embed([_curves(report)]),
        provenance=json.dumps(report["provenance"], indent=2),
        version=report["provenance"]["versions"]["glidereg"],
    )


# --- tables -----------------------------------------------------------------------------------


def _region_rows(case: dict) -> list[list[str]]:
    rows = []
    for region, error in case["error_mm"].items():
        if error is None:
            continue
        motion, within = case["motion_mm"][region], case["within_percent"][region]
        cells = [number(motion["mean"]), number(motion["max"])]
        cells += [number(error[key]) for key in ("mean", "median", "p95", "max")]
        cells += [number(within[t], 2) for t in ("1", "2", "3")]
        rows.append([region, *cells, f"{error['n']:,}"])
    return rows


def _motion_rows(case: dict) -> list[list[str]]:
    rows = []
    for row in case["by_motion"]:
        end = "or more" if row["to_mm"] is None else f"to {row['to_mm']:g}"
        cells = [number(row["share_percent"], 1)]
        cells += [number(row[key]) for key in ("mean", "p95", "max")]
        cells += [number(row["within_percent"][t], 2) for t in ("1", "2", "3")]
        rows.append([f"{row['from_mm']:g} {end}", *cells])
    return rows


def _tre_row(case: dict) -> str:
    """What landmarks would have said."""
    errors = (case.get("tre_mm") or {}).get("after")
    if errors is None:
        return ""
    return (
        f"TRE at {errors['n']} corners in the lungs, where an observer would put landmarks: "
        f"mean {number(errors['mean'])}, 95th percentile {number(errors['p95'])}, "
        f"maximum {number(errors['max'])} mm."
    )


def _facts(case: dict) -> list[tuple[str, str]]:
    inverse, jacobian = case["inverse_consistency_mm"], case["smallest_jacobian"]
    folds = case["folding_percent"]
    return [
        (
            "Compared",
            f"{case['compared_percent']:.2f} % of the body; the rest is air below {AIR_HU:g} HU, "
            "or its true partner lies outside the moving image",
        ),
        ("Folded voxels", f"{folds['body']:.4f} % of the body, {folds['grid']:.4f} % of the grid"),
        (
            "Smallest Jacobian in the body",
            f"{jacobian['found']:.2f} (true field, whole grid: {jacobian['true']:.2f})",
        ),
        (
            "Inverse consistency (numerical inverse)",
            f"mean {inverse['mean']:.3f}, 95th percentile {inverse['p95']:.3f}, "
            f"maximum {inverse['max']:.3f} mm; a check of the inverse, not of accuracy",
        ),
        ("Encoder", str(case["encoder"]["name"])),
        ("Seconds", f"{case['cost']['seconds']['total']:.0f}"),
    ]


# --- pictures ---------------------------------------------------------------------------------


def _view(plane: Plane, case: KnownCase, errors: np.ndarray) -> ErrorView:
    low, high = LUNG_WINDOW

    def scaled(values: np.ndarray) -> np.ndarray:
        return np.clip((values - low) / (high - low), 0, 1)

    crop = _crop(plane, errors >= 0)
    before = sample(case.moving, plane.points()[crop], low)
    cut = plane.cut(errors)[crop]
    counted = np.where(cut >= 0, cut, np.nan)
    return ErrorView(plane, scaled(plane.cut(case.fixed.array)[crop]), scaled(before), counted)


def _error_colors(view: ErrorView, colors: ScalarMappable, largest: float) -> np.ndarray:
    """The dark fixed image with the error over it: the larger, the less shines through."""
    gray = np.repeat(0.75 * view.fixed[..., None], 3, axis=2)
    errors = np.nan_to_num(view.errors, nan=0.0)
    over = colors.to_rgba(np.clip(errors, 0, largest))[..., :3]
    weight = np.clip(errors / largest / (4 * _FAINT), 0, 0.9)
    weight = np.where(np.isnan(view.errors), 0, weight)[..., None]
    return (1 - weight) * gray + weight * over


def _curves(report: dict) -> bytes:
    """The share of the body within a distance of its true place, a curve for each case."""
    figure = Figure(figsize=(10.4, 3.0), dpi=150, layout="constrained")
    axes = figure.subplots()
    limits = report["limits"]
    for case, color in zip(report["cases"], _CURVES, strict=False):
        shares = case["share_within_tenths_percent"]
        axes.plot(np.arange(len(shares)) / 10, shares, color=color, label=case["name"])
    axes.axvline(limits["within_mm"], color=INK, linewidth=0.8, linestyle="--")
    axes.axhline(limits["share_percent"], color=INK, linewidth=0.8, linestyle="--")
    axes.set(xlim=(0, 6), ylim=(0, 101))
    axes.set_xlabel("distance from the true place, mm", fontsize=8.5)
    axes.set_ylabel("share of the body, %", fontsize=8.5)
    axes.tick_params(labelsize=8.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e3e9ec", linewidth=0.7)
    axes.legend(frameon=False, fontsize=8.5, loc="lower right")
    stream = io.BytesIO()
    FigureCanvasAgg(figure).print_png(stream, metadata={"Software": "GlideReg"})
    return stream.getvalue()
