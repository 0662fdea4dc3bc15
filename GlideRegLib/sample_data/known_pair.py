"""A pair of images whose true deformation is known: what the generators return."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..landmarks import write_landmarks
from ..volume import Volume, replace_whole, write_image, write_volume

if TYPE_CHECKING:
    from ..field import DisplacementField


@dataclass(frozen=True)
class KnownPair:
    """A fixed and a moving CT with the true displacement between them.

    ``fixed`` and ``moving`` are float32 volumes in HU. ``displacement`` is float32 (3, Z, Y, X) on
    the fixed grid, LPS mm, fixed to moving: the fixed point p is the moving point p + u(p).
    ``fixed_labels`` and ``moving_labels`` are uint8 volumes (``label_names`` names the values).
    ``fixed_landmarks`` and ``moving_landmarks`` are float64 (N, 3) in LPS mm; row k belongs to row
    k, exactly. ``jacobian`` is the determinant of the true map, float32 (Z, Y, X). ``description``
    says what the pair is made of, and "phantom" or "semi-synthetic".
    """

    name: str
    description: str
    fixed: Volume
    moving: Volume
    fixed_labels: Volume
    moving_labels: Volume
    label_names: dict[int, str]
    displacement: np.ndarray
    jacobian: np.ndarray
    fixed_landmarks: np.ndarray
    moving_landmarks: np.ndarray

    @property
    def field(self) -> DisplacementField:
        """The true displacement as a field on the fixed grid."""
        import torch

        from ..field import DisplacementField

        return DisplacementField(torch.from_numpy(self.displacement), self.fixed.grid)

    def motion(self, label: int | None = None) -> np.ndarray:
        """Length of the true displacement in mm in the voxels of a fixed label (None: in all)."""
        length = np.linalg.norm(self.displacement, axis=0)
        return length.ravel() if label is None else length[self.fixed_labels.array == label]

    def save(self, folder: str | Path) -> dict[str, Path]:
        """Writes everything into a folder and returns the paths by name.

        Images are rounded to whole HU. Keys: fixed, moving, fixed_labels, moving_labels,
        displacement, fixed_landmarks, moving_landmarks, about. Raises :class:`OutputError`.
        """
        folder = Path(folder)
        images = ["fixed", "moving", "fixed_labels", "moving_labels"]
        paths = {name: folder / f"{name}.nii.gz" for name in [*images, "displacement"]}
        for name in images:
            labels = name.endswith("labels")
            write_volume(paths[name], getattr(self, name), np.uint8 if labels else np.int16)
        write_image(paths["displacement"], self.field.to_sitk())
        for name in ("fixed_landmarks", "moving_landmarks"):
            paths[name] = folder / f"{name}.csv"
            write_landmarks(paths[name], getattr(self, name))
        paths["about"] = folder / "about.json"
        replace_whole(paths["about"], partial(_write_about, self))
        return paths


def _write_about(pair: KnownPair, path: Path) -> None:
    about = {
        "name": pair.name,
        "description": pair.description,
        "displacement": "LPS mm, fixed to moving, on the fixed grid",
        "label_names": pair.label_names,
        "landmarks": len(pair.fixed_landmarks),
    }
    path.write_text(json.dumps(about, indent=2) + "\n", "utf-8")
