"""corrField (its authors' ``corrfield.py``, needs CUDA), as a program ``corrfield`` on the PATH.

Heinrich, Handels and Simpson, "Estimating Large Lung Motion in COPD Patients by Symmetric
Regularised Correspondence Fields", MICCAI 2015;
https://github.com/multimodallearning/Lung250M-4B (corrfield). Keypoints, a spanning tree and belief
propagation, thin-plate splines; its defaults for lungs: search 16 then 8 voxels, made for 1 to
1.75 mm. It looks for keypoints inside a mask of the fixed image: the user's, else the body.

It writes NAME.nii.gz with the sizes 1, X, Y, Z, 3 and no geometry: displacements in voxels along
the image's own axes, fixed to moving.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from ..errors import MethodError
from ..progress import Progress
from ..result import Result
from ..settings import Settings, out_of_range
from ..volume import Volume
from .frame import Problem, Solution, run
from .peers import field_of_voxels, peer, read_nifti_array, run_program

if TYPE_CHECKING:
    from ..field import DisplacementField


@dataclass(frozen=True)
class Options:
    """``alpha`` (-a), ``beta`` (-b) and ``gamma`` (-g) of the program; ``search`` radii (-L),
    ``cubes`` of the non-maximum suppression (-N), ``steps`` (-Q), ``patches`` (-R) per stage."""

    alpha: float = 2.5
    beta: float = 150.0
    gamma: float = 5.0
    search: tuple[int, ...] = (16, 8)
    cubes: tuple[int, ...] = (6, 3)
    steps: tuple[int, ...] = (2, 1)
    patches: tuple[int, ...] = (3, 2)

    def problems(self) -> list[str]:
        found = out_of_range(self, {"alpha": (0, 1e4), "beta": (0, 1e6), "gamma": (0, 1e4)})
        lists = (self.search, self.cubes, self.steps, self.patches)
        if not self.search or len({len(values) for values in lists}) != 1:
            found.append("search, cubes, steps and patches need the same number of values")
        return found


def register(
    fixed: Volume,
    moving: Volume,
    settings: Settings,
    progress: Progress,
    fixed_mask: Volume | None = None,
    moving_mask: Volume | None = None,
    landmark_constraints: None = None,
) -> Result:
    """See :meth:`Method.register`."""
    return run(_solve, (fixed, moving), settings, progress, (fixed_mask, moving_mask))


def _solve(problem: Problem) -> Solution:
    with peer("corrField") as folder:
        return Solution(_displacement(problem, folder))


def _displacement(problem: Problem, folder: Path) -> DisplacementField:
    grid, options = problem.prepared.grid, problem.options
    mask = Volume(problem.prepared.fixed_mask.cpu().numpy().astype(np.uint8), grid).to_sitk()
    for name, image in zip(("fixed", "moving", "mask"), (*problem.images(), mask), strict=True):
        sitk.WriteImage(image, str(folder / f"{name}.nii.gz"))
    command = ["corrfield", "-F", "fixed.nii.gz", "-M", "moving.nii.gz", "-m", "mask.nii.gz"]
    command += ["-O", "field", "-a", f"{options.alpha:g}", "-b", f"{options.beta:g}"]
    command += ["-g", f"{options.gamma:g}", "-T", "x".join("n" * len(options.search))]
    lists = {"-L": options.search, "-N": options.cubes, "-Q": options.steps, "-R": options.patches}
    for flag, values in lists.items():
        command += [flag, "x".join(map(str, values))]
    run_program(command, folder, problem.progress, problem.threads)
    voxels = read_nifti_array(folder / "field.nii.gz")
    if voxels.shape != (1, *grid.size, 3):
        raise MethodError("The displacement field that corrField wrote lies on another grid.")
    return field_of_voxels(voxels[0].transpose(2, 1, 0, 3), grid)
