"""``report.html``: one self-contained page with pictures, numbers, settings and provenance."""

from __future__ import annotations

import base64
import json
from importlib import resources

import numpy as np

from ..result import NOTICE, Result
from ..volume import Volume


def build_report(
    result: Result,
    fixed: Volume,
    moving: Volume,
    warped: Volume | None = None,
    errors: dict[str, np.ndarray] | None = None,
    labels: tuple[Volume, Volume] | None = None,
) -> str:
    """The page as HTML text; it loads nothing from anywhere and names no file and no patient.

    ``errors`` are landmark errors (N,) in mm, "before" and "after"; numbers come from
    ``result.report``. ``labels`` (fixed, moving) choose the point through which planes are cut.
    """
    import jinja2

    warped = warped or result.warp(moving)
    pictures = _pictures(result, fixed, moving, warped, errors, labels)
    template = resources.files(__package__).joinpath("template.html.j2").read_text("utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    report = result.report
    return environment.from_string(template).render(
        notice=NOTICE,
        report=report,
        quality=report.get("quality", {}),
        pictures={
            name: "data:image/png;base64," + base64.b64encode(data).decode()
            for name, data in pictures.items()
        },
        provenance=json.dumps(report.get("provenance", {}), indent=2),
    )


def _pictures(
    result: Result,
    fixed: Volume,
    moving: Volume,
    warped: Volume,
    errors: dict[str, np.ndarray] | None,
    labels: tuple[Volume, Volume] | None,
) -> dict[str, bytes]:
    """PNG bytes by name: compare, field and, with landmarks, landmarks."""
    from . import figures
    from .planes import PLANES, display_window, nearest_axes, plane_through

    grid = result.fixed_grid
    low, high = display_window(fixed.array, result.body, result.modality)

    def scale(array: np.ndarray) -> np.ndarray:
        return np.clip((array.astype(np.float32) - low) / (high - low), 0, 1)

    unmoved = moving.resampled(grid, background=result.background)
    point = _point_of_interest(result, labels)
    planes = [plane_through(grid, name, point) for name in PLANES]
    cuts = [tuple(scale(plane.cut(v.array)) for v in (fixed, unmoved, warped)) for plane in planes]
    axes = nearest_axes(grid)
    columns = [axes[0], axes[0], axes[1]]
    spacings = [grid.spacing[axis] for axis in columns]
    found = {"compare": figures.compare_figure(planes, cuts, spacings)}
    jacobian = result.jacobian().array
    # Where each fixed point came from before the initial alignment, along the patient's axes.
    positions = result.field.sample_grid(grid).numpy() + _positions(result)
    in_plane = {"axial": (0, 1), "coronal": (0, 2), "sagittal": (1, 2)}
    found["field"] = figures.field_figure(
        planes,
        [cut[2] for cut in cuts],
        [tuple(plane.cut(positions[k]) for k in in_plane[plane.name]) for plane in planes],
        [plane.cut(jacobian) for plane in planes],
    )
    if errors is not None:
        found["landmarks"] = figures.landmark_figure(errors["before"], errors["after"])
    return found


def _positions(result: Result) -> np.ndarray:
    """LPS mm of every voxel of the fixed grid: float32 (3, Z, Y, X)."""
    grid = result.fixed_grid
    offset = np.asarray(grid.origin, dtype=np.float32).reshape(3, 1, 1, 1)
    return grid.voxels_to_mm(grid.index_tensor()).numpy() + offset


def _point_of_interest(result: Result, labels: tuple[Volume, Volume] | None) -> np.ndarray:
    """An LPS point (3,) to cut through: the middle of the labels, else of the body, a little to
    the patient's right, where a lung or the liver is."""
    mask = result.body
    if labels is not None and labels[0].array.shape == mask.shape:
        mask = labels[0].array > 0
    index = np.argwhere(mask)
    if len(index) == 0:
        return result.fixed_grid.center
    low, high = result.fixed_grid.to_physical(
        np.stack([index.min(axis=0), index.max(axis=0)])[:, ::-1].astype(float)
    )
    left = abs(high[0] - low[0])
    return (low + high) / 2 - np.array([0.18 * left, 0.0, 0.0])
