"""uniGradICON through its own package and weights, in this process.

Tian et al., "uniGradICON: A Foundation Model for Medical Image Registration", MICCAI 2024;
https://github.com/uncbiag/uniGradICON. Two-step GradICON network at 175^3 voxels; CT clipped to
[-1000, 1000] HU and scaled to 0 to 1, MR from its minimum to its 99th percentile. With
``iterations`` above 0 the weights are fitted to the pair (instance optimization: the package's 50
steps at a rate of 2e-5, local correlation). It reads the weights that the user has put there and
downloads nothing. Its transform maps fixed to moving in LPS mm.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
import torch

from ..errors import WeightsError
from ..field import sample_transform
from ..progress import Progress
from ..result import Result
from ..settings import Settings, out_of_range
from ..volume import Volume
from .base import find_weights
from .catalog import UNIGRADICON_FILES
from .frame import Problem, Solution, run
from .peers import checked_field, peer

if TYPE_CHECKING:
    import itk

    from ..field import DisplacementField

_SIMILARITIES = ("lncc", "lncc2", "mind")


@dataclass(frozen=True)
class Options:
    """``weights``: the file Step_2_final.trch. ``iterations`` of the instance optimization, its
    ``learning_rate`` and ``similarity`` (lncc, lncc2, mind)."""

    weights: str | None = None
    iterations: int = 0
    learning_rate: float = 2e-5
    similarity: str = "lncc"

    def problems(self) -> list[str]:
        found = out_of_range(self, {"iterations": (0, 10_000), "learning_rate": (1e-9, 1)})
        if self.similarity not in _SIMILARITIES:
            found.append(f"similarity must be {', '.join(_SIMILARITIES)}")
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
    """Imports the packages. Raises :class:`MethodError` when they cannot be imported."""
    with peer("uniGradICON"):
        import icon_registration.itk_wrapper  # noqa: F401
        import itk
        import unigradicon  # noqa: F401

        # Each name loads the libraries behind it when it is first looked up.
        for name in ("image_from_array", "transformwrite"):
            getattr(itk, name)


def _solve(problem: Problem) -> Solution:
    path = Path(problem.options.weights or find_weights(UNIGRADICON_FILES))
    if not path.is_file():  # the package would try to download what it does not find
        raise WeightsError(f"The uniGradICON weights '{path}' do not exist; check the path.")
    with peer("uniGradICON") as folder:
        field = _displacement(problem, path.resolve(), folder)
        return Solution(field, packages=("unigradicon", "icon_registration"))


def _displacement(problem: Problem, weights: Path, folder: Path) -> DisplacementField:
    import icon_registration.config
    import itk
    import unigradicon
    from icon_registration import itk_wrapper

    options, grid = problem.options, problem.prepared.grid
    icon_registration.config.device = torch.device(problem.device)
    torch.manual_seed(problem.settings.seed)
    with torch.enable_grad():
        network = unigradicon.get_unigradicon(
            loss_fn=unigradicon.make_sim(options.similarity), weights_location=str(weights)
        )
        fixed, moving = (
            _to_itk(values, problem) for values in (problem.prepared.fixed, problem.prepared.moving)
        )
        more = {"learning_rate": options.learning_rate} if options.iterations else {}
        forward, _ = itk_wrapper.register_pair(
            network, moving, fixed, finetune_steps=options.iterations or None, **more
        )
    path = str(folder / "transform.h5")
    itk.transformwrite([forward], path)
    return checked_field(sample_transform(sitk.ReadTransform(path), grid).vectors, grid)


def _to_itk(values: torch.Tensor, problem: Problem) -> itk.Image:
    """A working image scaled to 0 to 1 as in the network's training, with its geometry."""
    import itk

    array = values.cpu().numpy().astype(np.float32)
    low, high = (-1000.0, 1000.0)
    if problem.prepared.modality != "ct":
        low, high = float(array.min()), float(np.percentile(array, 99))
    scaled = np.clip((array - low) / max(high - low, 1e-6), 0, 1)
    image = itk.image_from_array(np.ascontiguousarray(scaled))
    grid = problem.prepared.grid
    image.SetSpacing(grid.spacing)
    image.SetOrigin(grid.origin)
    image.SetDirection(grid.direction_matrix)
    return image
