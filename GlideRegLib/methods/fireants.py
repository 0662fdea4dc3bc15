"""FireANTs through the PyPI package ``fireants`` (its own license), in this process.

Jena, Chaudhari and Gee, "FireANTs: Adaptive Riemannian Optimization for Multi-Scale Diffeomorphic
Registration", 2024. Greedy, local cross-correlation, as in its tutorial: scales 4, 2, 1 with 200,
100, 50 iterations, Adam at 0.5; intensities mapped to 0 to 1 as it expects. Its ANTs warp maps
fixed to moving in LPS mm.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import SimpleITK as sitk

from ..progress import Progress
from ..result import Result
from ..settings import Settings
from ..volume import Volume
from .frame import Problem, Solution, run
from .peers import field_of_image, peer

if TYPE_CHECKING:
    from ..field import DisplacementField


@dataclass(frozen=True)
class Options:
    """``scales`` (downsampling) and ``iterations``, coarse to fine; ``kernel``: side of the window
    of the correlation, voxels; ``learning_rate``."""

    scales: tuple[int, ...] = (4, 2, 1)
    iterations: tuple[int, ...] = (200, 100, 50)
    kernel: int = 5
    learning_rate: float = 0.5

    def problems(self) -> list[str]:
        found = []
        if not self.scales or len(self.scales) != len(self.iterations):
            found.append("scales and iterations need the same number of values, at least one")
        if min((*self.scales, *self.iterations), default=1) < 1:
            found.append("scales and iterations are at least 1")
        if self.kernel < 3 or self.kernel % 2 == 0:
            found.append(f"kernel must be odd and at least 3, not {self.kernel}")
        if not 0 < self.learning_rate <= 10:
            found.append(f"learning_rate must be above 0 and at most 10, not {self.learning_rate}")
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


def preload() -> None:
    """Imports the package. Raises :class:`MethodError` when it cannot be imported."""
    with peer("FireANTs"):
        import fireants.io.image
        import fireants.registration.greedy  # noqa: F401


def _solve(problem: Problem) -> Solution:
    with peer("FireANTs") as folder:
        return Solution(_displacement(problem, folder), packages=("fireants",))


def _displacement(problem: Problem, folder: Path) -> DisplacementField:
    from fireants.io.image import BatchedImages, Image
    from fireants.registration.greedy import GreedyRegistration

    options = problem.options
    batches = [
        BatchedImages([Image(sitk.RescaleIntensity(image, 0.0, 1.0), device=problem.device)])
        for image in problem.images()
    ]
    registration = GreedyRegistration(
        scales=list(options.scales),
        iterations=list(options.iterations),
        fixed_images=batches[0],
        moving_images=batches[1],
        loss_type="cc",
        cc_kernel_size=options.kernel,
        deformation_type="compositive",
        smooth_grad_sigma=1.0,
        optimizer="adam",
        optimizer_lr=options.learning_rate,
        progress_bar=False,
    )
    registration.optimize()
    path = folder / "warp.nii.gz"
    registration.save_as_ants_transforms(str(path))
    return field_of_image(sitk.ReadImage(str(path)), problem.prepared.grid)
