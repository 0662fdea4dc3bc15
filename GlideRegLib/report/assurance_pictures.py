"""The pictures of an assessment: those of the report for any transform, and the worst places."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from PIL import Image

from ..field import sample_transform, transform_points
from ..geometry import Grid
from ..redaction import without_names
from ..result import Result
from ..volume import Volume
from . import _embed, _window_text, charts, figures
from .figures import FOLDED, _without_data, red_cyan
from .sheet import INK
from .views import Scene, _scale, build_scene, contains, sample

if TYPE_CHECKING:
    import SimpleITK

    from ..assurance.assess import Evidence
    from ..assurance.records import Assessment, Spot
    from ..assurance.subject import Subject

#: Side of the pictures of a place in mm, samples along it, and how many places are shown.
_SIDE_MM, _SAMPLES, _MOST = 70.0, 176, 6
#: Plane -> LPS directions of the columns and of the rows (down), and letters left, right, up, down.
_PLANES = {
    "axial": ((1, 0, 0), (0, 1, 0), "RLAP"),
    "coronal": ((1, 0, 0), (0, 0, -1), "RLSI"),
    "sagittal": ((0, 1, 0), (0, 0, -1), "APSI"),
}
_INCHES, _DPI = 2.1, 100
_CROSS = "#ffd24a"


@dataclass(frozen=True)
class TransformField:
    """Any ITK transform (fixed to moving, LPS mm) in the place of a displacement field, sampled
    where it is asked for: no field of the whole image is made."""

    transform: SimpleITK.Transform

    def sample(self, points: np.ndarray) -> np.ndarray:
        """Displacement in LPS mm at LPS points (N, 3): (N, 3)."""
        return transform_points(self.transform, points) - points

    def transform_points(self, points: np.ndarray) -> np.ndarray:
        """Fixed LPS points (N, 3) to moving LPS points."""
        return transform_points(self.transform, points)

    def sample_grid(self, grid: Grid) -> torch.Tensor:
        """Displacement at every voxel of a grid: (3, Z, Y, X) LPS mm."""
        return sample_transform(self.transform, grid).vectors


@dataclass(frozen=True)
class Drawn:
    """Everything drawn: rows of pictures by name; name, reason, place and picture of each spot;
    the intensities shown, the point that the planes meet in, and whether folds are in them."""

    pictures: dict[str, list]
    spots: list[dict]
    window: str
    point: str
    folds_shown: bool


def draw_pictures(
    assessment: Assessment,
    subject: Subject,
    evidence: Evidence,
    update: Callable[[float], None] = lambda share: None,
) -> Drawn:
    """Draws all pictures; ``update`` is called with the share that is done."""
    whole = Result(
        TransformField(subject.transform),
        np.eye(4),
        subject.fixed.grid,
        subject.body,
        subject.modality,
        subject.background,
    )
    scene = build_scene(whole, subject.fixed, subject.moving, evidence.warped, subject.labels)
    drawers = _drawers(subject, evidence, scene)
    pictures = {}
    for k, (name, draw) in enumerate(drawers.items()):
        update(0.2 + 0.5 * k / len(drawers))
        pictures[name] = _embed(draw())
    spots = []
    for spot in assessment.spots[:_MOST]:
        update(0.7 + 0.3 * len(spots) / _MOST)
        spots.append(_spot_entry(spot, subject, evidence, scene))
    x, y, z = scene.point
    return Drawn(
        pictures,
        spots,
        _window_text(subject.modality, scene.window),
        f"{x:.1f}, {y:.1f}, {z:.1f}",
        any((view.jacobian <= 0).any() for view in scene.views),
    )


def _drawers(
    subject: Subject, evidence: Evidence, scene: Scene
) -> dict[str, Callable[[], list[bytes]]]:
    """What draws each row of pictures that there is something to draw for."""
    drawers: dict[str, Callable[[], list[bytes]]] = {
        "overlay": lambda: figures.overlay_figure(scene),
        "difference": lambda: figures.difference_figure(scene),
        "field": lambda: figures.field_figure(scene),
        "jacobian": lambda: [charts.jacobian_chart(_some(evidence, subject))],
    }
    if subject.labels is not None:
        drawers["outlines"] = lambda: figures.outline_figure(scene)
    errors = evidence.errors
    if errors is not None and len(errors["after"]):
        drawers["landmarks"] = lambda: [charts.landmark_chart(errors["before"], errors["after"])]
    return drawers


def _some(evidence: Evidence, subject: Subject, most: int = 2_000_000) -> np.ndarray:
    """Jacobian determinants of the body, of every k-th voxel where there are many."""
    values = evidence.survey.jacobian[subject.body]
    return values[:: max(1, len(values) // most)]


def _spot_entry(spot: Spot, subject: Subject, evidence: Evidence, scene: Scene) -> dict:
    data = base64.b64encode(spot_figure(spot, subject, evidence, scene)).decode()
    return {
        "why": without_names(spot.why),
        "place": ", ".join(f"{v:.1f}" for v in spot.place),
        "picture": f"data:image/jpeg;base64,{data}",
    }


def spot_figure(spot: Spot, subject: Subject, evidence: Evidence, scene: Scene) -> bytes:
    """One place as a JPEG: red-cyan after registration above, the Jacobian below, in three planes;
    a cross marks the place."""
    figure = Figure(figsize=(3 * _INCHES, 2 * _INCHES + 0.3), dpi=_DPI, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    height = 2 * _INCHES + 0.3
    for column, (name, (right, down, letters)) in enumerate(_PLANES.items()):
        points = _patch(np.asarray(spot.place), np.asarray(right), np.asarray(down))
        pictures = _spot_pictures(points, subject, evidence, scene)
        for row, picture in enumerate(pictures):
            box = (
                (column + 0.01) / 3,
                (1 - row) * _INCHES / height,
                0.98 / 3,
                0.98 * _INCHES / height,
            )
            _draw_patch(figure.add_axes(box), picture, letters)
        place = ((column + 0.02) / 3, 1 - 0.2 / height)
        figure.text(*place, name, fontsize=9, color=INK)
    return _jpeg(canvas)


def _patch(center: np.ndarray, right: np.ndarray, down: np.ndarray) -> np.ndarray:
    """LPS points (rows, columns, 3) of a square picture around a place."""
    steps = ((np.arange(_SAMPLES) + 0.5) / _SAMPLES - 0.5) * _SIDE_MM
    return center + steps[:, None, None] * down + steps[None, :, None] * right


def _spot_pictures(
    points: np.ndarray, subject: Subject, evidence: Evidence, scene: Scene
) -> tuple[np.ndarray, np.ndarray]:
    """Red-cyan and Jacobian colors (rows, columns, 3); dark where the fixed image ends."""
    inside = contains(subject.fixed, points)[..., None]
    background = scene.window[0]
    fixed = _scale(sample(subject.fixed, points, background), scene.window)
    warped = _scale(sample(evidence.warped, points, background), scene.moving_window)
    moved = transform_points(subject.transform, points.reshape(-1, 3)).reshape(points.shape)
    overlay = _without_data(red_cyan(fixed, warped), fixed, contains(subject.moving, moved))
    overlay = np.where(inside, overlay, 0.25)
    map_ = Volume(evidence.survey.jacobian, subject.fixed.grid)
    jacobian = sample(map_, points, 1.0, order=0)
    octaves = np.clip(np.log2(np.clip(jacobian, 2**-8, 2**8)) / 2 + 0.5, 0, 1)
    colors = colormaps["PuOr_r"](octaves)[..., :3]
    colors[jacobian <= 0] = FOLDED
    return overlay, np.where(inside, colors, 0.25)


def _draw_patch(axes: Axes, picture: np.ndarray, letters: str) -> None:
    """A picture with letters and a cross in the middle that leaves the place itself free."""
    axes.imshow(picture, extent=(-0.5, 0.5, 0.5, -0.5), interpolation="bilinear")
    axes.set(xticks=[], yticks=[], xlim=(-0.5, 0.5), ylim=(0.5, -0.5))
    axes.spines[:].set_visible(False)
    stroke = [withStroke(linewidth=2, foreground="black")]
    for a, b in ((-0.16, -0.05), (0.05, 0.16)):
        axes.plot((a, b), (0, 0), color=_CROSS, linewidth=1.1, path_effects=stroke)
        axes.plot((0, 0), (a, b), color=_CROSS, linewidth=1.1, path_effects=stroke)
    places = ((-0.47, 0, "left"), (0.47, 0, "right"), (0, -0.46, "center"), (0, 0.46, "center"))
    for letter, (x, y, align) in zip(letters, places, strict=True):
        vertical = {-0.46: "top", 0.46: "bottom"}.get(y, "center")
        axes.text(
            x, y, letter, ha=align, va=vertical, color="white", fontsize=8, path_effects=stroke
        )


def _jpeg(canvas: FigureCanvasAgg) -> bytes:
    canvas.draw()
    stream = io.BytesIO()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    Image.fromarray(pixels).save(stream, "JPEG", quality=86, subsampling=0, optimize=True)
    return stream.getvalue()
