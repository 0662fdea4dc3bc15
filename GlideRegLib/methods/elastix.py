"""elastix through the PyPI package ``itk-elastix`` (Apache-2.0), in this process.

Klein, Staring, Murphy, Viergever and Pluim, "elastix: a toolbox for intensity-based medical image
registration", IEEE TMI 2010. Its default B-spline parameter map: mutual information, adaptive
stochastic gradient descent, 4 resolutions, final grid 10 mm. Its deformation field maps fixed to
moving in LPS mm.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..progress import Progress
from ..result import Result
from ..settings import Settings, out_of_range
from ..volume import Volume
from .frame import Problem, Solution, run
from .peers import checked_field, peer

if TYPE_CHECKING:
    import itk

    from ..field import DisplacementField


#: What is used of the package.
_NAMES = (
    "MultiThreaderBase",
    "ParameterObject",
    "elastix_registration_method",
    "image_from_array",
    "transformix_deformation_field",
)


@dataclass(frozen=True)
class Options:
    """``grid_mm``: final spacing of the control points; ``resolutions``: levels; ``iterations`` of
    each of them."""

    grid_mm: float = 10.0
    resolutions: int = 4
    iterations: int = 256

    def problems(self) -> list[str]:
        limits = {"grid_mm": (2, 100), "resolutions": (1, 8), "iterations": (1, 100_000)}
        return out_of_range(self, limits)


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


def preload() -> None:
    """Imports the package. Raises :class:`MethodError` when it cannot be imported."""
    with peer("elastix"):
        import itk

        # Each name loads the libraries behind it when it is first looked up.
        for name in _NAMES:
            getattr(itk, name)


def _solve(problem: Problem) -> Solution:
    with peer("elastix") as folder:
        return Solution(_displacement(problem, folder), packages=("itk-elastix",))


def _displacement(problem: Problem, folder: Path) -> DisplacementField:
    import itk

    itk.MultiThreaderBase.SetGlobalDefaultNumberOfThreads(problem.threads)
    grid, options = problem.prepared.grid, problem.options
    first, second = (_to_itk(t) for t in (problem.prepared.fixed, problem.prepared.moving))
    for image in (first, second):
        image.SetSpacing(grid.spacing)
        image.SetOrigin(grid.origin)
        image.SetDirection(grid.direction_matrix)
    parameters = itk.ParameterObject.New()
    chosen = parameters.GetDefaultParameterMap("bspline", options.resolutions, options.grid_mm)
    chosen["MaximumNumberOfIterations"] = (str(options.iterations),)
    chosen["RandomSeed"] = (str(problem.settings.seed + 1),)
    parameters.AddParameterMap(chosen)
    _, found = itk.elastix_registration_method(
        first, second, parameter_object=parameters, log_to_console=False
    )
    # Without a folder it writes deformationField.nii into the current one.
    image = itk.transformix_deformation_field(
        second, found, log_to_console=False, output_directory=str(folder)
    )
    vectors = np.ascontiguousarray(np.moveaxis(np.asarray(image), -1, 0), dtype=np.float32)
    return checked_field(torch.from_numpy(vectors), grid)


def _to_itk(values: torch.Tensor) -> itk.Image:
    import itk

    return itk.image_from_array(np.ascontiguousarray(values.cpu().numpy(), dtype=np.float32))
