"""From volumes to feature volumes: positions must survive, and trained features must earn it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from GlideRegLib.align import initial_alignment
from GlideRegLib.features.cache import FeatureCache
from GlideRegLib.features.encoders import Encoder, load_encoder
from GlideRegLib.features.reduction import ReducedFeatures
from GlideRegLib.features.slices import encode_volume, foreground_cells, plan_slices
from GlideRegLib.geometry import Grid, transform_points
from GlideRegLib.landmarks import read_landmarks
from GlideRegLib.prepare import Prepared, body_mask, normalize_intensity, prepare_pair
from GlideRegLib.progress import Progress
from GlideRegLib.settings import FeatureSettings, ReductionSettings
from GlideRegLib.volume import read_volume


class MeanEncoder:
    """Stands for a network whose features are known: channel means over each cell."""

    name, identity, trained, weights_sha256, channels = "mean", "mean", False, None, 3
    fixed_side, side_multiple = None, 32

    def __init__(self, stride: int = 16) -> None:
        self.stride = stride
        self.calls = 0

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += len(images)
        return torch.nn.functional.avg_pool2d(images, self.stride)


def encode(
    image: torch.Tensor, grid: Grid, encoder: Encoder, settings: FeatureSettings, **options: object
) -> tuple[torch.Tensor, Grid]:
    plan = plan_slices(grid, encoder, settings)
    body = options.pop("body", torch.ones(grid.shape, dtype=torch.bool))
    cache = options.pop("cache", FeatureCache(enabled=False))
    found = encode_volume(
        image, body, grid, plan, encoder, settings, "mr", cache, Progress(), **options
    )
    return found, plan.cells


def ramp(grid: Grid, axis: int) -> torch.Tensor:
    """An image whose value is the position along an axis in voxels, times ten."""
    return grid.index_tensor()[axis] * 10


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("side", [None, 512])
def test_a_cell_holds_what_lies_at_its_own_position(axis: int, side: int | None) -> None:
    grid = Grid((48, 64, 32), (1.5, 1.5, 1.5), (10.0, -20.0, 5.0))
    settings = FeatureSettings(cell_mm=6.0, slice_mm=3.0, input_side=side)
    found, cells = encode(ramp(grid, axis), grid, MeanEncoder(), settings)
    expected = grid.index_of(cells)[axis] * 10 / 1000
    # Cells that reach over the border of the image see its replicated edge.
    inside = [slice(2, -2) if side is None or k == 2 else slice(None) for k in range(3)]
    lower, upper = 0.02, grid.size[axis] * 10 / 1000 - 0.02
    kept = (expected > lower + 0.06) & (expected < upper - 0.06)
    assert kept[tuple(inside)].any()
    difference = (found[0].float() - expected)[kept]
    assert difference.abs().max() < 2e-3  # float16


def test_cells_have_the_size_that_was_asked_for() -> None:
    grid = Grid((112, 144, 224), (1.5, 1.5, 1.5), (0.0, 0.0, 0.0))
    plan = plan_slices(grid, MeanEncoder(), FeatureSettings(cell_mm=6.0, slice_mm=4.0))
    assert plan.cells.spacing == pytest.approx((6.0, 6.0, 3.0))
    assert np.allclose(plan.cells.center, grid.center)
    assert np.allclose(plan.cells.extent, plan.pixels.extent)


def test_slices_without_tissue_are_not_encoded() -> None:
    grid = Grid((32, 32, 32), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0))
    body = torch.zeros(grid.shape, dtype=torch.bool)
    body[8:16] = True
    encoder = MeanEncoder()
    settings = FeatureSettings(cell_mm=8.0, slice_mm=4.0)
    found, _ = encode(ramp(grid, 0) + 10, grid, encoder, settings, body=body)
    assert encoder.calls == 4
    assert found[:, 4:8].abs().sum() > 0
    assert found[:, :4].abs().sum() == 0


def test_a_second_run_does_not_encode_again(tmp_path: Path) -> None:
    grid = Grid((32, 32, 16), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0))
    settings = FeatureSettings(cell_mm=8.0)
    encoder, cache = MeanEncoder(), FeatureCache(tmp_path)
    first, _ = encode(ramp(grid, 0), grid, encoder, settings, cache=cache)
    calls = encoder.calls
    second, _ = encode(ramp(grid, 0), grid, encoder, settings, cache=cache)
    assert encoder.calls == calls
    assert torch.equal(first, second)
    encode(ramp(grid, 1), grid, encoder, settings, cache=cache)
    assert encoder.calls > calls


# --- real weights on the real follow-up pair --------------------------------------------------

SETTINGS = FeatureSettings(cell_mm=8.0, slice_mm=8.0)


@dataclass(frozen=True)
class RealPair:
    """The follow-up pair on a 2 mm working grid, and its landmarks in that grid's frame (LPS)."""

    prepared: Prepared
    fixed_points: np.ndarray
    moving_points: np.ndarray


@pytest.fixture(scope="module")
def real_pair(shared_data: Path) -> RealPair:
    folder = shared_data / "lung_followup"
    fixed, moving = (read_volume(folder / f"{n}.mha") for n in ("baseline", "followup"))
    points = [read_landmarks(folder / f"{n}_points51.txt").points for n in ("baseline", "followup")]
    pair = [normalize_intensity(volume, "ct") for volume in (fixed, moving)]
    masks = tuple(body_mask(volume, "ct") for volume in pair)
    initial, _ = initial_alignment(*pair, masks, "ct", Progress())
    prepared = prepare_pair(fixed, moving, initial, 2.0, 10.0, "ct", masks)
    return RealPair(prepared, points[0], transform_points(np.linalg.inv(initial), points[1]))


def reduced_features(pair: RealPair, encoder: Encoder, kind: str) -> ReducedFeatures:
    prepared = pair.prepared
    plan = plan_slices(prepared.grid, encoder, SETTINGS)
    volumes, shares = [], []
    for image, body in (
        (prepared.fixed, prepared.fixed_mask),
        (prepared.moving, prepared.moving_mask),
    ):
        cache, progress = FeatureCache(enabled=False), Progress()
        volumes.append(
            encode_volume(
                image, body, prepared.grid, plan, encoder, SETTINGS, "ct", cache, progress
            )
        )
        shares.append(foreground_cells(body, prepared.grid, plan))
    settings = ReductionSettings(kind=kind, warm_up=100, static_steps=200)
    return ReducedFeatures(*volumes, *shares, plan.cells, settings, seed=0)


def share_of_recognized(pair: RealPair, features: ReducedFeatures) -> float:
    """How often a landmark is more like its true partner than like a place beside it (0 to 1).

    One to two cells beside it: beyond that random features tell places apart as well, because
    even a random network knows how far the border of the slice is.
    """
    fixed, moving = features.volumes()

    def at(volume: torch.Tensor, points: np.ndarray) -> torch.Tensor:
        index = torch.as_tensor(features.cells.to_index(points).T, dtype=torch.float32)
        return features.cells.sample(volume, index.reshape(3, -1, 1, 1)).reshape(len(volume), -1)

    own = at(fixed, pair.fixed_points)
    true = (own - at(moving, pair.moving_points)).square().sum(dim=0)
    wins = []
    for distance_mm in (8.0, 12.0, 16.0):
        for shift in distance_mm * np.vstack([np.eye(3), -np.eye(3)]):
            other = (own - at(moving, pair.moving_points + shift)).square().sum(dim=0)
            wins.append((true < other).float().mean())
    return float(torch.stack(wins).mean())


@pytest.fixture(scope="module")
def trained(real_pair: RealPair, shared_data: Path) -> ReducedFeatures:
    weights = shared_data / "weights" / "mobile_sam_image_encoder.safetensors"
    return reduced_features(real_pair, load_encoder("mobile_sam", weights=weights), "dynamic")


def test_trained_features_recognize_places(real_pair: RealPair, trained: ReducedFeatures) -> None:
    assert share_of_recognized(real_pair, trained) > 0.88


def test_trained_features_beat_random_weights(
    real_pair: RealPair, trained: ReducedFeatures
) -> None:
    control = reduced_features(
        real_pair, load_encoder("mobile_sam", random_weights=True), "dynamic"
    )
    difference = share_of_recognized(real_pair, trained) - share_of_recognized(real_pair, control)
    assert difference > 0.05


def test_learning_along_does_not_collapse_the_latents(trained: ReducedFeatures) -> None:
    before = trained.latent_deviation()
    for _ in range(5):
        trained.update(torch.zeros(3, *trained.cells.shape))
    after = trained.latent_deviation()
    assert (after > 0.3 * before).all()
    assert (after > 0.1).all()
