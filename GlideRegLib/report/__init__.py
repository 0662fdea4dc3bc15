"""``report.html``: one self-contained page with pictures, numbers, settings and provenance."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..result import NOTICE, Result
from ..volume import Volume

if TYPE_CHECKING:
    import jinja2

    from .views import Scene

#: Pixels of a picture per pixel of the page: sharp on fine screens and in print.
_PIXELS = 1.5
#: Height of a row of pictures on paper: two fit on a page of A4 with their explanation.
_PRINT_MM = 97


@dataclass(frozen=True)
class Picture:
    """An image of the page: its data URI, and its width on the screen (pixels) and on paper."""

    uri: str
    width: int
    print_mm: int


def build_report(
    result: Result,
    fixed: Volume,
    moving: Volume,
    warped: Volume | None = None,
    errors: dict[str, np.ndarray] | None = None,
    labels: tuple[Volume, Volume] | None = None,
    nodules: dict | None = None,
) -> str:
    """The page as HTML text; it loads nothing from anywhere and names no file and no patient.

    Numbers come from ``result.report``. ``warped`` is the moving image on the fixed grid (sampled
    here when it is not given), ``errors`` landmark errors (N,) in mm "before" and "after", and
    ``labels`` the label maps (fixed, moving) whose outlines are drawn. ``nodules`` is the content
    of the section on nodules, from :func:`.nodules.nodule_section`.
    """
    from .content import page_content
    from .planes import tilt_degrees
    from .views import build_scene

    scene = build_scene(result, fixed, moving, warped, labels)
    x, y, z = scene.point
    return page_template("template.html.j2").render(
        notice=NOTICE,
        pictures=_pictures(result, scene, errors, labels is not None),
        window=_window_text(result.modality, scene.window),
        point=f"{x:.1f}, {y:.1f}, {z:.1f}",
        overlap=scene.overlap,
        tilt=round(tilt_degrees(result.fixed_grid)),
        partial=not all(v.inside_before.all() and v.inside_after.all() for v in scene.views),
        worse_landmarks=_worse(errors),
        folds_shown=any((view.jacobian <= 0).any() for view in scene.views),
        **page_content(result.report),
        **({} if nodules is None else {"nodules": nodules}),
    )


def page_template(name: str) -> jinja2.Template:
    """A template of this folder; values are escaped, and a missing one is an error."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("GlideRegLib.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def _pictures(
    result: Result, scene: Scene, errors: dict[str, np.ndarray] | None, outlines: bool
) -> dict[str, list[Picture]]:
    """Rows of pictures by name: overlay, difference, field, jacobian; outlines and landmarks when
    there are some."""
    from . import charts, figures
    from .views import jacobian_samples

    found = {
        "overlay": figures.overlay_figure(scene),
        "difference": figures.difference_figure(scene),
        "field": figures.field_figure(scene),
        "jacobian": [charts.jacobian_chart(jacobian_samples(result))],
    }
    if outlines:
        found["outlines"] = figures.outline_figure(scene)
    if errors is not None and len(errors["after"]):
        before, after = (np.asarray(errors[name], dtype=float) for name in ("before", "after"))
        found["landmarks"] = [charts.landmark_chart(before, after)]
    return {name: _embed(rows) for name, rows in found.items()}


def _worse(errors: dict[str, np.ndarray] | None) -> int:
    """How many landmarks are farther from their place after than before."""
    if errors is None:
        return 0
    return int(np.count_nonzero(np.asarray(errors["after"]) > np.asarray(errors["before"])))


def _embed(rows: list[bytes]) -> list[Picture]:
    """The rows of one figure, equally wide; on paper the first one is at most _PRINT_MM high."""
    from PIL import Image

    pictures = []
    for data in rows:
        with Image.open(io.BytesIO(data)) as image:
            width, kind = image.width, image.format.lower()
            print_mm = pictures[0].print_mm if pictures else int(_PRINT_MM * width / image.height)
        uri = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
        pictures.append(Picture(uri, round(width / _PIXELS), print_mm))
    return pictures


def _window_text(modality: str, window: tuple[float, float]) -> str:
    low, high = window
    if modality != "ct":
        return "1st to 99.5th percentile of the body, each image by its own"
    return f"{low:.0f} to {high:.0f} HU (level {(low + high) / 2:.0f}, width {high - low:.0f})"
