"""The result of a registration as one object, and its files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import quality
from .errors import InputError
from .field import DisplacementField, affine_to_sitk, jacobian_determinant
from .geometry import Grid
from .geometry import transform_points as apply_matrix
from .volume import Volume
from .wholefolder import whole_folder

if TYPE_CHECKING:
    import SimpleITK

    from .regions.pairs import RegionPairs

SCHEMA = "glidereg-result-1"
NOTICE = "Research use only. Not a medical device."
#: The total field fades out over at most this distance beyond the fixed image: a start of many
#: centimeters would otherwise blow the file up. Up to 38 mm nothing folds out there.
TOTAL_BORDER_MM = 60.0


@dataclass(frozen=True)
class Result:
    """A registration: total transform p -> initial(p + u(p)), fixed to moving, LPS mm.

    ``field`` is u on a lattice that covers the fixed image and ends in zeros; ``initial`` the 4x4
    start. ``body`` (bool, on ``fixed_grid``) is the fixed patient; ``background`` the value of the
    moving image outside itself. ``report`` is what ``result.json`` holds, plain values only.
    ``uncertainty`` is the expected error in mm, float32 on a coarse grid (``confidence.py``), if it
    was asked for; ``regions`` the paired regions of a method that pairs regions.
    """

    field: DisplacementField
    initial: np.ndarray
    fixed_grid: Grid
    body: np.ndarray
    modality: str
    background: float
    report: dict = field(default_factory=dict)
    uncertainty: Volume | None = None
    regions: RegionPairs | None = None

    # --- transforms ---------------------------------------------------------------------------

    def transform_points(self, points: np.ndarray) -> np.ndarray:
        """Fixed LPS points (N, 3) to moving LPS points."""
        return apply_matrix(self.initial, self.field.transform_points(points))

    def inverse_points(self, points: np.ndarray) -> np.ndarray:
        """Moving LPS points (N, 3) to fixed LPS points."""
        start = apply_matrix(np.linalg.inv(self.initial), points)
        return self.field.inverse_points(start)

    @cached_property
    def inverse_field(self) -> DisplacementField:
        """The numerical inverse of u on the same lattice."""
        return self.field.inverse()

    def to_sitk(self) -> SimpleITK.CompositeTransform:
        """ITK composite, fixed to moving: the field first, then the initial transform."""
        import SimpleITK as sitk

        # ITK applies the transform that was added last first.
        return sitk.CompositeTransform(
            [affine_to_sitk(self.initial), self.field.to_sitk_transform()]
        )

    def inverse_to_sitk(self) -> SimpleITK.CompositeTransform:
        """ITK composite, moving to fixed: the inverse start first, then the inverse field."""
        import SimpleITK as sitk

        return sitk.CompositeTransform(
            [
                self.inverse_field.to_sitk_transform(),
                affine_to_sitk(np.linalg.inv(self.initial)),
            ]
        )

    def total_field(self) -> DisplacementField:
        """initial(p + u(p)) - p: one field with the same effect on the fixed image and around it.

        The start is linear, so linear interpolation of this field loses nothing. Like u, it fades
        to zero beyond the fixed image, over at most ``TOTAL_BORDER_MM``: programs disagree about
        what a field does outside its grid, unless it ends in zeros.
        """
        import torch

        grid = self._lattice_over_fixed(2)
        index = grid.index_tensor()
        matrix = torch.as_tensor(self.initial, dtype=torch.float64)
        positions = grid.voxels_to_mm(index.double())
        positions += torch.as_tensor(grid.origin, dtype=torch.float64).view(3, 1, 1, 1)
        vectors = self.field.sample_grid(grid)
        moved = torch.einsum("ij,jzyx->izyx", matrix[:3, :3], positions + vectors)
        moved += matrix[:3, 3].view(3, 1, 1, 1)
        total = DisplacementField((moved - positions).float(), grid)
        return total.with_zero_border(limit_mm=TOTAL_BORDER_MM)

    # --- images -------------------------------------------------------------------------------

    def warp(self, moving: Volume, labels: bool = False) -> Volume:
        """The moving image on the fixed grid; outside the moving image: its background."""
        background = 0 if labels else self.background
        return moving.resampled(self.fixed_grid, self.to_sitk(), background, labels)

    def jacobian(self) -> Volume:
        """Jacobian determinant of the total transform on the fixed grid."""
        values = quality.sample_jacobian(self.field, self.initial, self.fixed_grid)
        return Volume(values.numpy(), self.fixed_grid)

    def coarse_jacobian(self) -> Volume:
        """The same at the field's own resolution, over the fixed image: small enough to keep."""
        grid = self._lattice_over_fixed(0)
        values = quality.sample_jacobian(self.field, self.initial, grid)
        return Volume(values.numpy(), grid)

    def _lattice_over_fixed(self, margin: int) -> Grid:
        """The nodes of the field's lattice that cover the fixed image, and ``margin`` more."""
        lattice = self.field.grid
        index = lattice.to_index(self.fixed_grid.corners())
        lower = np.clip(np.floor(index.min(axis=0)) - margin, 0, None)
        last = np.asarray(lattice.size) - 1
        upper = np.clip(last - np.ceil(index.max(axis=0)) - margin, 0, None)
        return lattice.padded(tuple(-lower.astype(int)), tuple(-upper.astype(int)))

    # --- measures -----------------------------------------------------------------------------

    def landmark_errors(self, fixed: np.ndarray, moving: np.ndarray) -> dict[str, np.ndarray]:
        """Errors (N,) in mm "before" (coordinates as they stand) and "after"."""
        return {
            "before": quality.landmark_errors(fixed, moving),
            "after": quality.landmark_errors(self.transform_points(fixed), moving),
        }

    def landmark_quality(self, fixed: np.ndarray, moving: np.ndarray) -> dict:
        """``tre_mm`` before and after, and ``cpm_percent``, for corresponding LPS landmarks.

        "before" compares the coordinates as they stand in the two files.
        """
        errors = self.landmark_errors(fixed, moving)
        measures = quality.landmark_summary(errors["before"], errors["after"])
        start = quality.landmark_errors(apply_matrix(self.initial, fixed), moving)
        measures["tre_mm"]["initial"] = quality.summarize_errors(start)
        return measures

    def label_quality(self, fixed: Volume, moving: Volume) -> dict:
        """``labels`` (per label Dice, HD95, distance to agreement), before and after."""
        if not fixed.grid.is_close(self.fixed_grid, 1e-2):
            fixed = fixed.resampled(self.fixed_grid, labels=True)
        unmoved = moving.resampled(self.fixed_grid, labels=True)
        warped = self.warp(moving, labels=True)
        return quality.label_summary(fixed.array, unmoved.array, warped.array, self.fixed_grid)

    def field_quality(self) -> dict:
        """Folding, spread of the determinant, and consistency of the numerical inverse."""
        jacobian = quality.sample_jacobian(self.field, self.initial, self.fixed_grid)
        measures = quality.summarize_jacobian(jacobian, self.body)
        folded = quality.sample_folds(self.field, self.initial, self.fixed_grid)
        measures.update(quality.summarize_folds(folded, self.body))
        points = self._body_points()
        # The same nodes of the same inverse that is saved, and only those that count here; every
        # fourth point is enough for a check of numerics.
        some = points[::4]
        inverse = self.field.inverse(near=self.field.transform_points(some))
        measures["inverse_consistency_mm"] = quality.inverse_consistency(self.field, inverse, some)
        if self.uncertainty is not None:
            from .confidence import summarize_uncertainty

            measures["uncertainty_mm"] = summarize_uncertainty(self.uncertainty, points)
        moved = np.linalg.norm(self.transform_points(points) - points, axis=1)
        measures["displacement_mm"] = {"mean": float(moved.mean()), "max": float(moved.max())}
        measures["lattice_jacobian_min"] = float(
            jacobian_determinant(self.field.vectors, self.field.grid).min()
        )
        return measures

    def _body_points(self, count: int = 20000) -> np.ndarray:
        """Points spread evenly over the body (every k-th voxel), LPS mm."""
        flat = np.flatnonzero(self.body)
        if flat.size == 0:
            flat = np.arange(self.body.size)
        chosen = flat[:: max(1, flat.size // count)]
        index = np.stack(np.unravel_index(chosen, self.body.shape), axis=1)[:, ::-1]
        return self.fixed_grid.to_physical(index)

    def uncertainty_at(self, points: np.ndarray) -> np.ndarray:
        """The expected error in mm at fixed LPS points (N, 3): (N,). Where nothing is known,
        outside of the registered region too: ``confidence.UNKNOWN_MM``.

        Raises :class:`InputError` when the run did not estimate it.
        """
        if self.uncertainty is None:
            raise InputError("This run estimated no uncertainty; switch its setting on.")
        from .confidence import sample_uncertainty

        return sample_uncertainty(self.uncertainty, points)

    # --- files --------------------------------------------------------------------------------

    def save(
        self,
        folder: str | Path,
        moving: Volume,
        extra: dict[str, str] | None = None,
        check: Callable[[], None] = lambda: None,
        jacobian: bool = False,
    ) -> None:
        """Writes warped.nii.gz, transform.h5, inverse_transform.h5, displacement.nii.gz,
        result.json, uncertainty.nii.gz if it was estimated, the files of ``regions`` if there are
        any, with ``jacobian`` also jacobian.nii.gz (:meth:`coarse_jacobian`), and what ``extra``
        holds (file name -> text), all or none.

        ``check`` is called between the files and may raise to cancel. Raises :class:`OutputError`
        when the folder cannot be written.
        """
        import SimpleITK as sitk

        with whole_folder(folder) as partial:
            sitk.WriteImage(self._warped_image(moving), str(partial / "warped.nii.gz"), True)
            check()
            sitk.WriteTransform(self.to_sitk(), str(partial / "transform.h5"))
            check()
            sitk.WriteTransform(self.inverse_to_sitk(), str(partial / "inverse_transform.h5"))
            check()
            vectors = sitk.Cast(self.total_field().to_sitk(), sitk.sitkVectorFloat32)
            sitk.WriteImage(vectors, str(partial / "displacement.nii.gz"), True)
            check()
            if jacobian:
                image = self.coarse_jacobian().to_sitk()
                sitk.WriteImage(image, str(partial / "jacobian.nii.gz"), True)
                check()
            if self.uncertainty is not None:
                from .confidence import write_uncertainty

                write_uncertainty(partial / "uncertainty.nii.gz", self.uncertainty)
                check()
            if self.regions is not None:
                self.regions.write(partial)
                check()
            self._write_report(partial)
            for name, content in (extra or {}).items():
                (partial / name).write_text(content, encoding="utf-8")

    def save_images(
        self, folder: str | Path, moving: Volume, check: Callable[[], None] = lambda: None
    ) -> None:
        """Writes warped.mha, displacement.mha, jacobian.mha (:meth:`coarse_jacobian`), and
        uncertainty.mha if it was estimated, uncompressed, the files of ``regions`` if there are
        any, and result.json: for a program that reads them at once. All or none.

        Raises :class:`OutputError` when the folder cannot be written.
        """
        import SimpleITK as sitk

        with whole_folder(folder) as partial:
            sitk.WriteImage(self._warped_image(moving), str(partial / "warped.mha"))
            check()
            vectors = sitk.Cast(self.total_field().to_sitk(), sitk.sitkVectorFloat32)
            sitk.WriteImage(vectors, str(partial / "displacement.mha"))
            check()
            jacobian = self.coarse_jacobian().to_sitk()
            sitk.WriteImage(jacobian, str(partial / "jacobian.mha"))
            check()
            if self.uncertainty is not None:
                from .confidence import write_uncertainty

                write_uncertainty(partial / "uncertainty.mha", self.uncertainty)
                check()
            if self.regions is not None:
                self.regions.write(partial, ".mha")
                check()
            self._write_report(partial)

    def _warped_image(self, moving: Volume) -> SimpleITK.Image:
        """The warped moving image, with integers where the moving image has them."""
        warped = self.warp(moving)
        if self.modality == "ct" or _is_integer(moving.array):
            warped = Volume(np.round(warped.array).astype(np.int16), warped.grid)
        return warped.to_sitk()

    def _write_report(self, folder: Path) -> None:
        text = json.dumps(self.report, indent=2, allow_nan=False)
        (folder / "result.json").write_text(text + "\n", encoding="utf-8")


def _is_integer(array: np.ndarray) -> bool:
    return bool(np.array_equal(array, np.round(array))) and np.abs(array).max() < 32768
