"""ConvexAdam from our blocks against the package ``convexAdam`` 0.2.0.

The package's displacements are kept as numbers; where it is installed it is run as well.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from GlideRegLib.ablation import load_pair
from GlideRegLib.methods import find
from GlideRegLib.methods.convexadam import Features, Options, _pooled_mind, convex_adam
from GlideRegLib.optimize.warping import resize_displacement
from GlideRegLib.progress import Progress
from GlideRegLib.settings import Settings, with_changes

SHAPE = (54, 48, 60)
#: Voxels (z, y, x) at which the package was read.
PLACES = ((12, 12, 12), (20, 30, 45), (27, 24, 30), (33, 20, 36), (27, 36, 20), (40, 28, 30))
#: The motion in the middle, voxels, array order.
PUSH = np.array([10.0, -6.0, 4.0])
#: What ``convex_adam_pt`` gave there (array order z, y, x; voxels): without Adam, and with 80
#: iterations. Made by
#: ``package`` below.
PACKAGE_CONVEX = (
    (0.0943, 0.0, 0.0),
    (0.265, 0.0, 0.2572),
    (1.1812, 0.0, 1.1498),
    (0.56, 0.0, 0.8567),
    (0.3179, 0.0, 0.5119),
    (0.4916, 0.0, 0.858),
)
PACKAGE_ADAM = (
    (1.8685, -0.8978, 0.6114),
    (4.3832, -2.4996, 1.6662),
    (7.3696, -4.3288, 2.7786),
    (5.0448, -3.2301, 2.3582),
    (5.9064, -2.6774, 1.7324),
    (4.1408, -2.7431, 1.8494),
)


def texture(z: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """A smooth pattern without repetition inside the image, HU-like."""
    waves = np.sin(0.41 * x + 0.13 * y) + np.cos(0.37 * y - 0.29 * z) + np.sin(0.53 * z + 0.17 * x)
    return 200 * (waves + np.sin(0.05 * x * y / 3 + 0.21 * z)) - 300


def hill_at(points: np.ndarray) -> np.ndarray:
    """1 in the middle of the image, falling to 0 outward; (..., 3) array order."""
    return np.exp(-((points - np.array([27, 24, 30])) ** 2).sum(axis=-1) / 400)


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    """Fixed and moving images of an analytic motion of up to 12 voxels."""
    grid = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1).astype(float)
    hill = hill_at(grid)[..., None]
    fixed, moving = (texture(*np.moveaxis(p, -1, 0)) for p in (grid, grid - PUSH * hill))
    return tuple(torch.from_numpy(image.astype(np.float32)) for image in (fixed, moving))


def ours(options: Options) -> np.ndarray:
    """Our displacement (Z, Y, X, 3) in voxels, array order."""
    factors = (options.grid_spacing, options.adam_spacing)
    minds = [_pooled_mind(image, factors, options, lambda: None) for image in pair()]
    features = Features(*((minds[0][k], minds[1][k]) for k in (0, 1)))
    found, _ = convex_adam(features, options, None, Progress())
    return resize_displacement(found, SHAPE).flip(0).permute(1, 2, 3, 0).numpy()


def package(options: Options) -> np.ndarray:
    """The displacement of the package."""
    module = pytest.importorskip("convexAdam.convex_adam_MIND")
    images = [image.numpy() for image in pair()]
    weight = options.smoothness if options.adam_iterations else 0.0
    return module.convex_adam_pt(
        *images,
        lambda_weight=weight,
        selected_niter=options.adam_iterations,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )


def at_places(displacement: np.ndarray) -> np.ndarray:
    return np.array([displacement[place] for place in PLACES])


def test_the_convex_stage_is_that_of_the_package() -> None:
    found = at_places(ours(Options(adam_iterations=0)))
    assert np.abs(np.array(PACKAGE_CONVEX)).max() > 1, "something must have moved"
    np.testing.assert_allclose(found, PACKAGE_CONVEX, atol=1e-3)


def test_both_stages_are_those_of_the_package() -> None:
    """Adam at learning rate 1 lets rounding grow: a hundredth of a voxel after 80 iterations."""
    np.testing.assert_allclose(at_places(ours(Options())), PACKAGE_ADAM, atol=0.02)


def test_the_installed_package_agrees_everywhere() -> None:
    for options, limit in ((Options(adam_iterations=0), 1e-3), (Options(), 0.02)):
        difference = np.abs(ours(options) - package(options))
        assert difference.mean() < limit / 10 and np.quantile(difference, 0.999) < limit


def test_without_the_packages_faults_the_true_motion_is_found_better() -> None:
    grid = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1).astype(float)
    strong = hill_at(grid) > 0.4
    errors = {}
    for published in (True, False):
        there = grid + ours(Options(published=published))
        back = there - PUSH * hill_at(there)[..., None]  # moving(q) = fixed(q - push(q))
        errors[published] = np.linalg.norm(back - grid, axis=-1)[strong].mean()
    assert errors[False] < errors[True] < 1.0


# --- end to end, on the real pair -----------------------------------------------------------------

#: Every seventh landmark of the follow-up pair: its displacement in LPS mm by ``convex_adam_pt`` of
#: the package 0.2.0 on the working images of 3 mm, the pair as it is (no start), sampled linearly
#: with scipy; without Adam, and with 80 iterations. Means over all 51: 8.13 and 2.09 mm off.
PACKAGE_LUNG = {
    0: (
        (-0.150, -8.298, 32.330),
        (-0.004, -16.591, 35.774),
        (0.000, -17.249, 35.890),
        (-0.075, -11.300, 35.616),
        (0.000, -9.973, 35.610),
        (-0.045, -16.916, 35.680),
        (-0.465, -12.786, 32.149),
        (-0.317, -5.328, 30.293),
    ),
    80: (
        (-4.599, -8.965, 35.984),
        (0.835, -12.256, 30.285),
        (-1.686, -11.381, 31.168),
        (-4.809, -8.265, 34.375),
        (-2.783, -10.400, 31.418),
        (-2.503, -10.442, 32.944),
        (-1.166, -8.971, 36.321),
        (-5.544, -7.686, 36.677),
    ),
}
LANDMARKS_LUNG = (0, 7, 14, 21, 28, 35, 42, 50)


@pytest.mark.parametrize(("iterations", "off_mm"), [(0, 8.13), (80, 2.09)])
def test_the_method_moves_real_landmarks_as_the_package_does(
    iterations: int, off_mm: float, shared_data: Path
) -> None:
    """To 0.1 mm, a thirtieth of a voxel; 0.05 in the mean."""
    pair = load_pair("lung", shared_data)
    settings = with_changes(
        Settings.preset("fast"),
        initial="none",
        threads=1,
        features={"encoder": "none"},
        grid={"spacing_mm": 3.0},
        method="convexadam",
        method_options={"adam_iterations": iterations},
    )
    result = find("convexadam").register(pair.fixed, pair.moving, settings)
    points, truth = pair.landmarks
    moved = result.transform_points(points)
    found = (moved - points)[list(LANDMARKS_LUNG)]
    # Nodes 18 mm apart, without Adam, are interpolated a little otherwise at the image's border.
    limit = 0.1 if iterations else 0.2
    np.testing.assert_allclose(found, PACKAGE_LUNG[iterations], atol=limit)
    assert np.abs(found - PACKAGE_LUNG[iterations]).mean() < 0.05
    assert np.linalg.norm(moved - truth, axis=1).mean() == pytest.approx(off_mm, abs=0.02)
