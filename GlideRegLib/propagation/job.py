"""One propagation from files to files: what ``glidereg propagate`` and the worker run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import __version__
from ..errors import InputError, OutputError, SettingsError
from ..field import read_transform
from ..geometry import Grid
from ..job import check_output
from ..jobfile import as_job_text, job_values
from ..progress import Progress
from ..redaction import without_names
from ..result import NOTICE, whole_folder
from ..volume import Volume, content_hash, read_volume
from .carrier import NOTICEABLE_MM, Carrier
from .markups import carry_points
from .meshes import carry_mesh
from .volumes import (
    carry_dose,
    carry_image,
    carry_labels,
    label_volumes,
    layers_to_image,
    read_layers,
)

SCHEMA = "glidereg-propagation-1"
#: What a job file says to be told from a registration.
TASK = "propagate"
KINDS = ("labels", "points", "dose", "images", "meshes")
#: Endings of images that ITK writes; others become .nii.gz.
_IMAGES = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")


@dataclass(frozen=True)
class PropagateJob:
    """Paths of both images, of a transform (fixed to moving, LPS mm, any ITK transform), of what
    is carried, and the output folder.

    Things belong to the moving image and go to the fixed one; with ``back`` the other way round.
    ``smooth`` is for label maps: see :func:`.volumes.carry_labels`. Of both images only the grids
    count: instead of an image a ``.json`` with :meth:`Grid.to_dict` will do. ``compress`` makes
    image files smaller, and slower to write.
    """

    fixed: str
    moving: str
    transform: str
    output: str
    labels: tuple[str, ...] = ()
    points: tuple[str, ...] = ()
    dose: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    meshes: tuple[str, ...] = ()
    back: bool = False
    smooth: bool = False
    compress: bool = True

    def to_json(self) -> str:
        """As text for the worker's ``job.json``."""
        return as_job_text(TASK, self)

    @classmethod
    def from_json(cls, text: str) -> PropagateJob:
        """The inverse of :meth:`to_json`. Raises :class:`SettingsError` with one sentence."""
        values = job_values(text, TASK, cls)
        wrong = [kind for kind in KINDS if not isinstance(values.get(kind, ()), tuple)]
        if wrong:
            raise SettingsError(f"In the job file {', '.join(wrong)} must be lists of paths.")
        return cls(**values)

    def items(self) -> list[tuple[str, int, Path]]:
        """(kind, number from 1, path) of everything that is carried."""
        return [
            (kind, number, Path(path))
            for kind in KINDS
            for number, path in enumerate(getattr(self, kind), start=1)
        ]

    def check(self) -> None:
        """Raises a :class:`GlideRegError` for what cannot be run, before anything is read."""
        items = self.items()
        if not items:
            raise InputError(
                "Nothing to carry was given; add --labels, --points, --dose, --images or --meshes."
            )
        seen: dict[str, Path] = {}
        for kind, _, path in items:
            if not path.exists():
                raise InputError(f"'{path}' does not exist; check the path.")
            name = output_name(kind, path)
            if name in seen:
                raise InputError(
                    f"'{seen[name]}' and '{path}' would both be written as '{name}'; rename one."
                )
            seen[name] = path
            if (Path(self.output) / name).resolve() == path.resolve():
                raise OutputError(f"The output would replace the input '{path}'; give a folder.")
        check_output(Path(self.output))


def output_name(kind: str, path: Path) -> str:
    """The file name in the output folder: that of the input; DICOM and others become .nii.gz."""
    name = path.name
    if kind in ("points", "meshes") or name.lower().endswith(_IMAGES):
        return name
    return (path.stem if path.is_file() else name) + ".nii.gz"


def run_propagate_job(job: PropagateJob, progress: Progress | None = None) -> dict:
    """Reads, carries and writes; returns the content of ``propagation.json``.

    The files of the inputs appear under their own names in ``job.output``; all or none.
    Raises a :class:`GlideRegError` with one sentence.
    """
    progress = progress or Progress()
    job.check()
    items = job.items()
    progress.set_plan({"read": 1.0, "carry": 2.0 * len(items) + 2.0 * job.back, "save": 1.0})
    with progress.stage("read"):
        transform = read_transform(job.transform)
        fixed, moving = _read_grid(job.fixed), _read_grid(job.moving)
        carrier = Carrier(transform, fixed, moving, job.back)
    with whole_folder(job.output) as partial:
        entries = []
        with progress.stage("carry"):
            for done, (kind, number, path) in enumerate(items):
                progress.update(done / len(items))
                output = partial / output_name(kind, path)
                entry = {"kind": kind, "number": number, "source_sha256": content_hash(path)}
                entry.update(_CARRY[kind](path, output, carrier, job, progress))
                entry["output_sha256"] = content_hash(output)
                entries.append(entry)
        with progress.stage("save"):
            report = _report(job, carrier, entries, progress)
            text = json.dumps(report, indent=2, allow_nan=False)
            (partial / "propagation.json").write_text(text + "\n", encoding="utf-8")
            progress.check()
    return report


def _read_grid(path: str) -> Grid:
    """The grid of an image, or one from a ``.json`` file."""
    if not path.lower().endswith(".json"):
        return read_volume(path).grid
    try:
        return Grid.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"'{path}' holds no grid of an image.") from error


def _report(
    job: PropagateJob,
    carrier: Carrier,
    entries: list[dict],
    progress: Progress,
) -> dict:
    """Provenance: what went where, how, and from which files (by hash, never by name)."""
    inputs = {
        role: {"sha256": content_hash(path), "geometry": grid.to_dict()}
        for role, path, grid in (
            ("fixed", job.fixed, carrier.fixed),
            ("moving", job.moving, carrier.moving),
        )
    }
    pulls = any(entry["kind"] in ("labels", "dose", "images") for entry in entries)
    inverse = _inverse_error(carrier, progress) if pulls else None
    return {
        "schema": SCHEMA,
        "notice": NOTICE,
        "direction": "fixed to moving" if job.back else "moving to fixed",
        "transform": {
            "sha256": content_hash(job.transform),
            "frame": "LPS mm, fixed to moving",
            "inverse_error_mm": inverse,
        },
        "inputs": inputs,
        "items": entries,
        "messages": [f"{level}: {without_names(text)}" for level, text in progress.messages],
        "versions": {"glidereg": __version__},
    }


def _inverse_error(carrier: Carrier, progress: Progress) -> dict | None:
    """:meth:`Carrier.inverse_error`, with a warning where it can be noticed."""
    inverse = carrier.inverse_error()
    if inverse is not None and inverse["beyond"]:
        progress.message(
            "The inverse that labels, dose and images go through is off by more than "
            f"{NOTICEABLE_MM:g} mm at {100 * inverse['beyond'] / inverse['n']:.2g} % of the places "
            f"that were tested, by {inverse['max']:.1f} mm at most.",
            level="warning",
        )
    return inverse


# --- one item ---------------------------------------------------------------------------------


def _write_sitk(image: object, output: Path, compress: bool) -> None:
    import SimpleITK as sitk

    try:
        sitk.WriteImage(image, str(output), compress)
    except RuntimeError as error:
        raise OutputError(f"'{output.name}' cannot be written as an image; rename it.") from error


def _labels(
    path: Path, output: Path, carrier: Carrier, job: PropagateJob, progress: Progress
) -> dict:
    layers, about = read_layers(path)
    carried = [_carried(layer, carrier, job.smooth) for layer in layers]
    before, after = ([label_volumes(v) for v in side] for side in (layers, carried))
    volumes = [
        {"layer": k, "label": v, "source_mm3": size, "target_mm3": after[k].get(v, 0.0)}
        for k, sizes in enumerate(before)
        for v, size in sizes.items()
    ]
    lost = sorted({row["label"] for row in volumes if row["target_mm3"] == 0})
    if lost:
        progress.message(
            f"Labels {', '.join(map(str, lost[:20]))}{' ...' if len(lost) > 20 else ''} leave no "
            "voxel in the other image: they lie outside of it, or are too thin for its voxels.",
            level="warning",
        )
    _write_sitk(layers_to_image(carried, about), output, job.compress)
    method = "shape-based" if job.smooth else "nearest neighbor"
    return {"interpolation": method, "labels": volumes}


def _carried(layer: Volume, carrier: Carrier, smooth: bool) -> Volume:
    """A layer on the target grid; one without segments stays empty."""
    if layer.array.any():
        return carry_labels(layer, carrier, smooth)
    return Volume(np.zeros(carrier.target.shape, layer.array.dtype), carrier.target)


def _image(path: Path, output: Path, carrier: Carrier, job: PropagateJob, _: Progress) -> dict:
    _write_sitk(carry_image(read_volume(path), carrier).to_sitk(), output, job.compress)
    return {"interpolation": "linear"}


def _dose(
    path: Path, output: Path, carrier: Carrier, job: PropagateJob, progress: Progress
) -> dict:
    if path.is_dir() or path.suffix.lower() == ".dcm":
        raise InputError(f"'{path}' is DICOM; export the dose as .nrrd or .nii.gz, in Gy.")
    dose = read_volume(path)
    if dose.array.min() < 0:
        progress.message("A dose volume holds negative values.", level="warning")
    carried = carry_dose(dose, carrier)
    _write_sitk(carried.to_sitk(), output, job.compress)
    largest = {"source": float(dose.array.max()), "target": float(carried.array.max())}
    return {"interpolation": "linear", "outside": 0.0, "largest_value": largest}


def _points(
    path: Path, output: Path, carrier: Carrier, _: PropagateJob, progress: Progress
) -> dict:
    pushed: list[tuple[np.ndarray, np.ndarray]] = []

    def push(points: np.ndarray) -> np.ndarray:  # a ROI asks for more than its control points
        pushed.append((points, carrier.push(points)))
        return pushed[-1][1]

    found = carry_points(path, output, push, carrier.source)
    before, after = (np.concatenate(side) for side in zip(*pushed, strict=True))
    missed = carrier.push_error(before, after)
    return _places("points", found, missed, carrier, progress)


def _mesh(path: Path, output: Path, carrier: Carrier, _: PropagateJob, progress: Progress) -> dict:
    found = carry_mesh(path, output, carrier)
    missed = carrier.push_error(found[0], found[1])
    return _places("mesh points", found, missed, carrier, progress)


def _places(
    what: str,
    found: tuple[np.ndarray, np.ndarray, list[str]],
    missed: dict | None,
    carrier: Carrier,
    progress: Progress,
) -> dict:
    """How many points there were, how far they went, which lie outside of the images, and by how
    much the inverse ``missed`` them (:meth:`Carrier.push_error`)."""
    before, after, notes = found
    for note in notes:
        progress.message(without_names(note))
    strangers = int((~carrier.source.contains(before)).sum())
    if strangers:
        progress.message(
            f"{strangers} of {len(before)} {what} lie outside the image that they come from; check "
            "their frame (LPS or RAS), the direction, and that they belong to it.",
            level="warning",
        )
    if missed is not None and missed["beyond"]:
        progress.message(
            f"{missed['beyond']} of {missed['n']} {what} could not be placed exactly, and are off "
            f"by {missed['max']:.1f} mm at most: the transform has no inverse there, because its "
            "field ends, jumps or folds.",
            level="warning",
        )
    moved = np.linalg.norm(after - before, axis=1)
    return {
        "count": len(before),
        "outside_source": strangers,
        "outside_target": int((~carrier.target.contains(after)).sum()),
        "displacement_mm": {"mean": float(moved.mean()), "max": float(moved.max())},
        "inverse_error_mm": missed,
    }


_CARRY: dict[str, Callable[..., dict]] = {
    "labels": _labels,
    "points": _points,
    "dose": _dose,
    "images": _image,
    "meshes": _mesh,
}
