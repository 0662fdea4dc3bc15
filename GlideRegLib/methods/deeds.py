"""deeds (``deedsBCV``, MIT license), as a program on the PATH.

Heinrich, Jenkinson, Brady and Schnabel, "MRF-based deformable registration and ventilation
estimation of lung CT", IEEE TMI 2013; https://github.com/mattiaspaul/deedsBCV. Its defaults: 5
levels, grid 8x7x6x5x4, search 8x7x6x5x4, steps 5x4x3x2x1, alpha 1.6.

Its displacements are raw 32-bit floats in voxels of the file's own axes, u for all nodes, then v,
then w; against what their names suggest v moves along the first axis, u along the second, w along
the third. Node k of a grid of spacing s lies at voxel k s, not in the middle of its block.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
import torch

from ..errors import MethodError
from ..geometry import Grid
from ..progress import Progress
from ..result import Result
from ..settings import Settings, out_of_range
from ..volume import Volume
from .frame import Problem, Solution, run
from .peers import checked_field, peer, run_program

if TYPE_CHECKING:
    from ..field import DisplacementField


@dataclass(frozen=True)
class Options:
    """``alpha`` weighs the regularizer; per level: ``grid`` spacing in voxels, ``search`` radius in
    steps, ``steps`` in voxels."""

    alpha: float = 1.6
    grid: tuple[int, ...] = (8, 7, 6, 5, 4)
    search: tuple[int, ...] = (8, 7, 6, 5, 4)
    steps: tuple[int, ...] = (5, 4, 3, 2, 1)

    def problems(self) -> list[str]:
        found = out_of_range(self, {"alpha": (0, 100)})
        if not self.grid or not len(self.grid) == len(self.search) == len(self.steps):
            found.append("grid, search and steps need the same number of levels, at least one")
        if min((*self.grid, *self.search, *self.steps), default=1) < 1:
            found.append("grid, search and steps are at least 1")
        return found


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
    with peer("deeds") as folder:
        return Solution(_displacement(problem, folder))


def _displacement(problem: Problem, folder: Path) -> DisplacementField:
    for name, image in zip(("fixed", "moving"), problem.images(), strict=True):
        whole = sitk.Cast(sitk.Round(image), sitk.sitkInt16)
        sitk.WriteImage(whole, str(folder / f"{name}.nii.gz"))
    options = problem.options
    command = ["deedsBCV", "-F", "fixed.nii.gz", "-M", "moving.nii.gz", "-O", "deeds"]
    command += ["-a", f"{options.alpha:g}", "-l", str(len(options.grid))]
    for flag, values in (("-G", options.grid), ("-L", options.search), ("-Q", options.steps)):
        command += [flag, "x".join(map(str, values))]
    run_program(command, folder, problem.progress, problem.threads)
    path = folder / "deeds_displacements.dat"
    if not path.is_file():
        raise MethodError("deeds ended without writing its displacements.")
    return field_of_deeds(np.fromfile(path, "<f4"), problem.prepared.grid, options.grid[-1])


def field_of_deeds(values: np.ndarray, grid: Grid, spacing: int) -> DisplacementField:
    """The displacement in a file of deeds as a field on the lattice of its nodes.

    ``grid`` is that of the images, ``spacing`` that of the last level in voxels. Sizes that are no
    multiple of it: deeds stretches its nodes over the image, and so does the lattice.
    """
    size = np.array([max(n // spacing, 1) for n in grid.size])
    if values.size != 3 * size.prod():
        raise MethodError("The displacements that deeds wrote do not fit the images.")
    u, v, w = values.reshape(3, size[2], size[1], size[0])
    voxels = torch.from_numpy(np.stack((v, u, w)).astype(np.float32))
    step = np.asarray(grid.size) / size
    lattice = Grid(
        tuple(int(n) for n in size),
        tuple(float(s) for s in np.asarray(grid.spacing) * step),
        grid.origin,
        grid.direction,
    )
    # The field reaches half a node beyond its last one, the image nearly a whole one: one more
    # node there, as deeds itself repeats the last one.
    wider = lattice.padded((0, 0, 0), (1, 1, 1))
    repeated = torch.nn.functional.pad(voxels[None], (0, 1) * 3, mode="replicate")[0]
    return checked_field(grid.voxels_to_mm(repeated), wider)
