"""ANTs SyN through the PyPI package ``antspyx`` (Apache-2.0), in this process.

Avants, Epstein, Grossman and Gee, "Symmetric diffeomorphic image registration with
cross-correlation", Medical Image Analysis 2008. The default is the deformable stage of ANTs' own
script antsRegistrationSyNQuick: mutual information with 32 bins, 100 x 70 x 50 x 0 iterations, SyN
step 0.1, update smoothing 3. Its warp maps fixed to moving in LPS mm: ITK's convention, and ours.
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

#: Transforms of ``ants.registration`` with a deformable stage only.
_TRANSFORMS = ("antsRegistrationSyNQuick[so]", "antsRegistrationSyN[so]", "SyNOnly")


@dataclass(frozen=True)
class Options:
    """``transform``: what ``ants.registration`` calls type_of_transform."""

    transform: str = _TRANSFORMS[0]

    def problems(self) -> list[str]:
        known = self.transform in _TRANSFORMS
        return [] if known else [f"transform must be {', '.join(_TRANSFORMS)}"]


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
    with peer("ANTs"):
        import ants  # noqa: F401


def _solve(problem: Problem) -> Solution:
    with peer("ANTs") as folder:
        return Solution(_displacement(problem, folder), packages=("antspyx",))


def _displacement(problem: Problem, folder: Path) -> DisplacementField:
    import ants

    paths = []
    for name, image in zip(("fixed", "moving"), problem.images(), strict=True):
        paths.append(str(folder / f"{name}.nii.gz"))
        sitk.WriteImage(image, paths[-1])  # antspyx has its own ITK
    result = ants.registration(
        *(ants.image_read(path) for path in paths),
        type_of_transform=problem.options.transform,
        initial_transform="Identity",
        outprefix=str(folder / "ants"),
        random_seed=problem.settings.seed or 1,  # 0 would mean the clock
    )
    warp = next(name for name in result["fwdtransforms"] if "Warp" in name)
    return field_of_image(sitk.ReadImage(warp), problem.prepared.grid)
