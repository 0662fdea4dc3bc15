"""NiftyReg's ``reg_f3d`` (BSD license), as a program on the PATH.

Modat et al., "Fast free-form deformation using graphics processing units", Computer Methods and
Programs in Biomedicine 2010; https://github.com/KCL-BMEIS/niftyreg. Defaults: cubic B-splines every
5 voxels, normalized mutual information, 3 levels, bending energy. ``reg_transform -disp`` turns its
control points into a displacement: reference to floating, mm along NIfTI's world axes, which are
RAS; stored as X, Y, Z, 1, 3 with the intent of a plain vector, so ITK would not turn it to LPS.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
import torch

from ..errors import MethodError
from ..geometry import flip_lps_ras
from ..progress import Progress
from ..result import Result
from ..settings import Settings, out_of_range
from ..volume import Volume
from .frame import Problem, Solution, run
from .peers import checked_field, peer, read_nifti_array, run_program

if TYPE_CHECKING:
    from ..field import DisplacementField


@dataclass(frozen=True)
class Options:
    """``spacing_voxels`` of the control points (-sx), ``levels`` (-ln), ``bending`` weight (-be),
    ``iterations`` per level (-maxit); ``correlation_mm`` above 0: local correlation with a window
    of that deviation (--lncc) instead of mutual information."""

    spacing_voxels: float = 5.0
    levels: int = 3
    bending: float = 0.001
    iterations: int = 150
    correlation_mm: float = 0.0

    def problems(self) -> list[str]:
        return out_of_range(
            self,
            {
                "spacing_voxels": (1, 50),
                "levels": (1, 8),
                "bending": (0, 1),
                "iterations": (1, 10_000),
                "correlation_mm": (0, 100),
            },
        )


def register(
    fixed: Volume,
    moving: Volume,
    settings: Settings,
    progress: Progress,
    fixed_mask: None = None,
    moving_mask: None = None,
    landmark_constraints: None = None,
) -> Result:
    """See :meth:`Method.register`."""
    return run(_solve, (fixed, moving), settings, progress)


def _solve(problem: Problem) -> Solution:
    with peer("NiftyReg") as folder:
        return Solution(_displacement(problem, folder))


def _displacement(problem: Problem, folder: Path) -> DisplacementField:
    for name, image in zip(("fixed", "moving"), problem.images(), strict=True):
        sitk.WriteImage(image, str(folder / f"{name}.nii.gz"))
    options = problem.options
    spacing = -options.spacing_voxels  # below zero it counts voxels
    command = ["reg_f3d", "-ref", "fixed.nii.gz", "-flo", "moving.nii.gz"]
    command += ["-cpp", "cpp.nii.gz", "-res", "warped.nii.gz"]
    command += ["-sx", f"{spacing:g}", "-ln", str(options.levels), "-be", f"{options.bending:g}"]
    command += ["-maxit", str(options.iterations)]
    if options.correlation_mm > 0:
        command += ["--lncc", "0", f"{options.correlation_mm:g}"]
    run_program(command, folder, problem.progress, problem.threads)
    problem.progress.update(0.9)
    command = ["reg_transform", "-ref", "fixed.nii.gz", "-disp", "cpp.nii.gz", "disp.nii.gz"]
    run_program(command, folder, problem.progress, problem.threads)
    grid = problem.prepared.grid
    vectors = read_nifti_array(folder / "disp.nii.gz")
    if vectors.shape != (*grid.size, 1, 3):
        raise MethodError("The displacement field that NiftyReg wrote lies on another grid.")
    lps = flip_lps_ras(vectors[:, :, :, 0].transpose(2, 1, 0, 3))
    ordered = np.ascontiguousarray(np.moveaxis(lps, -1, 0), dtype=np.float32)
    return checked_field(torch.from_numpy(ordered), grid)
