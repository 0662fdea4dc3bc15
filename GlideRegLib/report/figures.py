"""The pictures of a report, drawn from a :class:`Scene`: overlays, differences, deformation.

Each function returns JPEGs, one for each row of pictures. Colors are safe for color-blind readers,
but for red-cyan, which the reader expects; the checkerboard says the same without color.
"""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from scipy import ndimage

from .sheet import VOID, Sheet
from .views import PlaneView, Scene

#: Colors of "before" and "after", and of outlines.
BEFORE, AFTER = "#b3632a", "#1f6f8b"
FIXED_LINE, MOVING_LINE = "#ffb000", "#4cc9f0"
GRID_LINE, FOLDED = "#ffd54a", (1.0, 0.0, 0.55)
#: Where the moving image has no data: the fixed image, dark and bluish.
_TINT, _BASE = np.array([0.30, 0.36, 0.46]), np.array([0.10, 0.13, 0.19])
_TILE_MM = 25.0
#: Jacobian maps: half widths of the color scale in octaves, the first that fits is taken.
_OCTAVES = (0.5, 1.0, 2.0)
_RATIOS = {
    -2.0: "1/4",
    -1.0: "1/2",
    -0.5: "0.71",
    0.0: "1 (no change)",
    0.5: "1.41",
    1.0: "2",
    2.0: "4",
}


def red_cyan(fixed: np.ndarray, moving: np.ndarray) -> np.ndarray:
    """Fixed in red, moving in cyan, both 0 to 1 (H, W): gray where they agree. (H, W, 3)."""
    return np.stack((fixed, moving, moving), axis=-1)


def checkerboard(fixed: np.ndarray, moving: np.ndarray, tile: tuple[int, int]) -> np.ndarray:
    """Tiles of ``tile`` (rows, columns) pixels in turn from both pictures (H, W), 0 to 1."""
    rows = np.arange(fixed.shape[0])[:, None] // tile[0]
    columns = np.arange(fixed.shape[1])[None] // tile[1]
    return np.where((rows + columns) % 2 == 0, fixed, moving)


def overlay_figure(scene: Scene) -> list[bytes]:
    """Red-cyan before and after, and the checkerboard after, in three planes."""
    sheet = Sheet(scene.views, 3)
    for column, view in enumerate(scene.views):
        name = view.plane.name.capitalize()
        before = _without_data(red_cyan(view.fixed, view.before), view.fixed, view.inside_before)
        after = _without_data(red_cyan(view.fixed, view.after), view.fixed, view.inside_after)
        width, height = (max(2, round(_TILE_MM / size)) for size in view.plane.pixel_mm)
        tiles = _gray(checkerboard(view.fixed, view.after, (height, width)))
        tiles = _without_data(tiles, view.fixed, view.inside_after)
        rows = ((before, "before"), (after, "after"), (tiles, "checkerboard, after"))
        for row, (picture, title) in enumerate(rows):
            axes = sheet.cell(row, column, f"{name}, {title}")
            sheet.show(axes, column, picture)
            if picture is tiles:
                _draw_tiles(axes, view, width, height)
    return sheet.jpegs()


def difference_figure(scene: Scene) -> list[bytes]:
    """Absolute difference before and after, in three planes, with its color bar."""
    sheet = Sheet(scene.views, 2, bar=True)
    colors = ScalarMappable(Normalize(0, scene.limit), colormaps["inferno"])
    for column, view in enumerate(scene.views):
        for row, (difference, inside, title) in enumerate(
            (
                (view.difference_before, view.inside_before, "before"),
                (view.difference_after, view.inside_after, "after"),
            )
        ):
            picture = colors.to_rgba(np.clip(difference, 0, scene.limit))[..., :3]
            picture = _without_data(picture, view.fixed, inside)
            axes = sheet.cell(row, column, f"{view.plane.name.capitalize()}, {title}")
            sheet.show(axes, column, picture)
    ticks = {share * scene.limit: f"{share * scene.limit:.0f}" for share in (0, 0.25, 0.5, 0.75)}
    ticks[scene.limit] = f"{scene.limit:.0f} or more"
    sheet.bar(colors, f"absolute difference, {scene.unit}", ticks)
    return sheet.jpegs()


def outline_figure(scene: Scene) -> list[bytes]:
    """Structures on the fixed image: the fixed outline, and the moving one before and after."""
    sheet = Sheet(scene.views, 2)
    for column, view in enumerate(scene.views):
        if view.labels is None:
            continue
        fixed, before, after = view.labels
        for row, (other, title) in enumerate(((before, "before"), (after, "after"))):
            axes = sheet.cell(row, column, f"{view.plane.name.capitalize()}, {title}")
            sheet.show(axes, column, _gray(view.fixed))
            _draw_outlines(axes, view, other, MOVING_LINE)
            _draw_outlines(axes, view, fixed, FIXED_LINE)
    return sheet.jpegs()


def field_figure(scene: Scene) -> list[bytes]:
    """The deformed grid over the warped image, and the Jacobian map, in three planes."""
    sheet = Sheet(scene.views, 2, bar=True)
    spacing = grid_spacing(scene)
    octaves = _octaves(scene)
    colors = ScalarMappable(Normalize(-octaves, octaves), colormaps["PuOr_r"])
    for column, view in enumerate(scene.views):
        name = view.plane.name.capitalize()
        axes = sheet.cell(0, column, f"{name}, grid of {spacing:g} mm")
        warped = _without_data(_gray(0.8 * view.after), view.fixed, view.inside_after)
        sheet.show(axes, column, warped)
        _draw_bent_grid(axes, view, spacing)
        axes = sheet.cell(1, column, f"{name}, Jacobian", void=VOID)
        sheet.show(axes, column, jacobian_colors(view, colors), smooth=False)
        _draw_contour(axes, view, view.body.astype(float), 0.5, "#3a4650", 0.9)
        _ring_folds(axes, view)
    ticks = {v: t for v, t in _RATIOS.items() if abs(v) <= octaves and (octaves < 2 or v % 1 == 0)}
    label = "Jacobian: volume in the moving over volume in the fixed image (log scale, clipped)"
    sheet.bar(colors, label, ticks)
    return sheet.jpegs()


def grid_spacing(scene: Scene) -> float:
    """Distance of the lines in mm: about 24 across the widest picture."""
    widest = max(max(view.size_mm) for view in scene.views)
    return min((5, 8, 10, 12, 15, 20, 25, 30, 40), key=lambda step: abs(step - widest / 24))


def jacobian_colors(view: PlaneView, colors: ScalarMappable) -> np.ndarray:
    """Jacobian map (rows, columns, 3): pale outside the body and where the moving image has no
    data (there the field is a guess), folded voxels in one loud color."""
    picture = colors.to_rgba(np.log2(np.clip(view.jacobian, 2**-8, 2**8)))[..., :3]
    counts = (view.body & view.inside_after)[..., None]
    picture = np.where(counts, picture, 0.3 * picture + 0.7 * 0.88)
    picture[view.jacobian <= 0] = FOLDED
    return picture


def _octaves(scene: Scene) -> float:
    values = np.concatenate([view.jacobian[view.body] for view in scene.views])
    if values.size == 0:
        return _OCTAVES[-1]
    reach = np.percentile(np.abs(np.log2(np.clip(values, 2**-8, None))), 98)
    return next((half for half in _OCTAVES if reach <= half), _OCTAVES[-1])


def _gray(picture: np.ndarray) -> np.ndarray:
    return np.repeat(picture[..., None], 3, axis=2)


def _without_data(picture: np.ndarray, fixed: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The picture (H, W, 3), and the tinted fixed image where the moving one has no data."""
    return np.where(inside[..., None], picture, _BASE + _TINT * fixed[..., None])


def _coordinates(view: PlaneView) -> tuple[np.ndarray, np.ndarray]:
    """Centers of the columns and rows in mm of the cell."""
    rows, columns = view.fixed.shape
    width, height = view.plane.pixel_mm
    return (np.arange(columns) + 0.5) * width, (np.arange(rows) + 0.5) * height


def _draw_bent_grid(axes: Axes, view: PlaneView, spacing: float) -> None:
    x, y = _coordinates(view)
    for coordinate in view.bent:
        first, last = np.ceil(coordinate.min() / spacing), np.floor(coordinate.max() / spacing)
        levels = np.arange(first, last + 1) * spacing
        if min(coordinate.shape) > 1 and len(levels):
            axes.contour(
                x,
                y,
                coordinate,
                levels=levels,
                colors=GRID_LINE,
                linewidths=0.9,
                linestyles="solid",  # else negative coordinates are dashed
            )


def _draw_tiles(axes: Axes, view: PlaneView, width: int, height: int) -> None:
    """Thin borders of tiles of ``width`` x ``height`` pixels: where images agree none shows."""
    rows, columns = view.fixed.shape
    size, style = view.size_mm, {"color": GRID_LINE, "linewidth": 0.4, "alpha": 0.55}
    axes.vlines(np.arange(width, columns, width) * view.plane.pixel_mm[0], 0, size[1], **style)
    axes.hlines(np.arange(height, rows, height) * view.plane.pixel_mm[1], 0, size[0], **style)


def _draw_contour(
    axes: Axes, view: PlaneView, values: np.ndarray, level: float, color: str, width: float
) -> None:
    """An iso-line, where there is one."""
    if min(values.shape) > 1 and values.min() < level < values.max():
        axes.contour(*_coordinates(view), values, levels=[level], colors=color, linewidths=width)


def _draw_outlines(axes: Axes, view: PlaneView, labels: np.ndarray, color: str) -> None:
    for label in np.unique(labels[labels != 0]):
        _draw_contour(axes, view, (labels == label).astype(float), 0.5, color, 1.1)


def _ring_folds(axes: Axes, view: PlaneView, most: int = 60) -> None:
    """Rings around folded places: single voxels would be overlooked."""
    labels, count = ndimage.label(view.jacobian <= 0)
    if count == 0:
        return
    centers = ndimage.center_of_mass(labels > 0, labels, range(1, min(count, most) + 1))
    rows, columns = np.array(centers).T
    width, height = view.plane.pixel_mm
    axes.plot(
        (columns + 0.5) * width,
        (rows + 0.5) * height,
        "o",
        markersize=9,
        markerfacecolor="none",
        markeredgecolor=FOLDED,
        markeredgewidth=1.4,
    )
