"""Reduction of encoder channels: whitening, no collapse, separation, repeatability.

Synthetic features: 12 smooth factors mixed into 256 channels, with noise of its own in each image;
the moving factors are the fixed ones displaced by whole cells.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
import torch
from scipy import ndimage

from GlideRegLib.errors import Cancelled
from GlideRegLib.features.autoencoder import Autoencoder
from GlideRegLib.features.reduction import ReducedFeatures, _Correspondences
from GlideRegLib.geometry import Grid
from GlideRegLib.settings import ReductionSettings

SHAPE = (8, 18, 20)  # Z, Y, X
CELLS = Grid(SHAPE[::-1], (6.0, 6.0, 4.0), (0.0, 0.0, 0.0))
SHIFT = (2, -1, 1)  # x, y, z in cells: fixed cell i corresponds to moving cell i + SHIFT
FACTORS, CHANNELS = 12, 256


def factors(seed: int, shape: tuple[int, int, int]) -> np.ndarray:
    random = np.random.default_rng(seed)
    raw = random.normal(size=(FACTORS, *shape))
    smooth = np.stack([ndimage.gaussian_filter(f, 1.2) for f in raw])
    return smooth / smooth.std(axis=(1, 2, 3), keepdims=True)


def shares() -> tuple[torch.Tensor, torch.Tensor]:
    """Tissue everywhere but in a margin of the fixed and of the moving image."""
    fixed, moving = torch.ones(SHAPE), torch.ones(SHAPE)
    fixed[:, :2] = 0
    moving[:, :, -3:] = 0
    return fixed, moving


@lru_cache
def feature_pair(noise: float = 4.5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """(256, Z, Y, X) float16 of both images."""
    pad = 4
    large = factors(seed, tuple(n + 2 * pad for n in SHAPE))
    random = np.random.default_rng(seed + 100)
    mixing = random.normal(size=(CHANNELS, FACTORS)) * np.linspace(1.5, 0.5, FACTORS)
    volumes = []
    for dx, dy, dz in ((0, 0, 0), SHIFT):
        part = tuple(slice(pad - d, pad - d + n) for d, n in zip((dz, dy, dx), SHAPE, strict=True))
        signal = np.einsum("kf,fzyx->kzyx", mixing, large[(slice(None), *part)])
        values = signal + noise * random.normal(size=signal.shape)
        volumes.append(torch.from_numpy(0.1 * values + 0.3).half())  # about the scale of SAM
    return volumes[0], volumes[1]


def settings(kind: str, **changes: object) -> ReductionSettings:
    small = {"kind": kind, "batch": 512, "warm_up": 60, "static_steps": 120}
    return ReductionSettings(**(small | changes))


def reduced(kind: str, seed: int = 0, **changes: object) -> ReducedFeatures:
    return ReducedFeatures(*feature_pair(), *shares(), CELLS, settings(kind, **changes), seed)


def true_displacement() -> torch.Tensor:
    return torch.tensor(SHIFT, dtype=torch.float32).view(3, 1, 1, 1).expand(3, *SHAPE).clone()


def foreground_rows(features: ReducedFeatures) -> np.ndarray:
    """Reduced vectors of the foreground of both images (N, channels)."""
    rows = [
        volume[:, share > 0.25].T.numpy()
        for volume, share in zip(features.volumes(), features.shares, strict=True)
    ]
    return np.concatenate(rows)


VARIANTS = [
    ("pca", {}),
    ("static", {}),
    ("dynamic", {}),
    ("static", {"literal": True}),
    ("dynamic", {"literal": True, "warm_up": 0, "steps_per_update": 1}),
]
every_variant = pytest.mark.parametrize(
    ("kind", "changes"), VARIANTS, ids=[k + "-literal" * ("literal" in c) for k, c in VARIANTS]
)


# --- whitening ------------------------------------------------------------------------------------


def test_pca_latents_have_unit_variance_and_are_uncorrelated() -> None:
    features = reduced("pca")
    rows = foreground_rows(features)
    assert rows.shape[1] == 12
    np.testing.assert_allclose(features.latent_deviation().numpy(), 1, atol=0.01)  # before, too
    np.testing.assert_allclose(rows.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(np.cov(rows.T), np.eye(12), atol=0.01)


def test_pca_is_what_numpy_finds_in_the_standardized_channels_cell_by_cell() -> None:
    """Up to the sign of each direction; this also pins every vector to its cell."""
    fixed, moving = feature_pair()
    share_fixed, share_moving = shares()
    raw = np.concatenate(
        [
            v.float()[:, s > 0.25].T.numpy().astype(float)
            for v, s in ((fixed, share_fixed), (moving, share_moving))
        ]
    )
    standard = (raw - raw.mean(axis=0)) / raw.std(axis=0, ddof=1)
    directions, variances, _ = np.linalg.svd(standard.T @ standard / (len(standard) - 1))
    expected = standard @ directions[:, :12] / np.sqrt(variances[:12])
    found = foreground_rows(reduced("pca"))
    sign = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found, expected * sign, atol=0.02)


def test_the_latents_span_the_factors_that_made_the_features() -> None:
    rows = foreground_rows(reduced("pca"))
    large = factors(0, tuple(n + 8 for n in SHAPE))
    truth = []
    for (dx, dy, dz), share in zip(((0, 0, 0), SHIFT), shares(), strict=True):
        part = tuple(slice(4 - d, 4 - d + n) for d, n in zip((dz, dy, dx), SHAPE, strict=True))
        truth.append(large[(slice(None), *part)][:, (share > 0.25).numpy()].T)
    truth = np.concatenate(truth)
    truth -= truth.mean(axis=0)
    fit = rows @ np.linalg.lstsq(rows, truth, rcond=None)[0]
    explained = 1 - (truth - fit).var(axis=0) / truth.var(axis=0)
    assert explained.mean() > 0.8
    assert explained.min() > 0.6


@every_variant
def test_every_variant_gives_standardized_channels_and_zero_background(
    kind: str, changes: dict
) -> None:
    features = reduced(kind, **changes)
    rows = foreground_rows(features)
    np.testing.assert_allclose(rows.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(rows.std(axis=0), 1, atol=1e-2)
    for volume, share in zip(features.volumes(), features.shares, strict=True):
        assert volume.shape == (12, *SHAPE)
        assert volume.dtype == torch.float32
        assert not volume[:, share == 0].any()


def test_cells_with_little_tissue_fade_by_their_share() -> None:
    fixed_share, moving_share = shares()
    whole = ReducedFeatures(
        *feature_pair(), fixed_share, moving_share, CELLS, settings("pca"), 0
    ).volumes()[0]
    fixed_share[3, 10, 10] = 0.6
    fixed_share[3, 11, 11] = 0.1
    faded = ReducedFeatures(
        *feature_pair(), fixed_share, moving_share, CELLS, settings("pca"), 0
    ).volumes()[0]
    ratio = faded[:, 3, 10, 10].norm() / whole[:, 3, 10, 10].norm()
    assert float(ratio) == pytest.approx(0.6, abs=0.02)
    assert not faded[:, 3, 11, 11].any()


# --- no collapse ----------------------------------------------------------------------------------


@every_variant
def test_no_latent_channel_collapses_while_the_field_is_still_wrong(
    kind: str, changes: dict
) -> None:
    """SSD alone has a constant as its minimum; 20 updates against a random displacement."""
    features = reduced(kind, **changes)
    random = 3 * torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(1))
    steps = 20 if "literal" not in changes else 200
    for _ in range(steps):
        features.update(random)
    deviation = features.latent_deviation()
    assert deviation.shape == (12,)
    assert float(deviation.min()) > 0.2
    assert float(deviation.max()) < 20 * float(deviation.min())
    rows = foreground_rows(features)
    correlation = np.abs(np.corrcoef(rows.T) - np.eye(12)).max()
    assert correlation < 0.9  # no two channels have become one


def test_without_reconstruction_the_literal_loss_does_collapse() -> None:
    """The control: the floor above can be missed."""
    features = reduced("dynamic", literal=True, warm_up=0, reconstruction=0.0, steps_per_update=10)
    for _ in range(20):
        features.update(3 * torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(1)))
    assert float(features.latent_deviation().min()) < 0.1


# --- separation -----------------------------------------------------------------------------------


def separation(fixed: torch.Tensor, moving: torch.Tensor) -> float:
    """Share of cases in which the corresponding cell is nearer than a random other one."""
    random = np.random.default_rng(5)
    dx, dy, dz = SHIFT
    z, y, x = np.meshgrid(np.arange(0, 7), np.arange(3, 18), np.arange(0, 14), indexing="ij")
    here = np.stack((z, y, x)).reshape(3, -1)
    there = here + np.array([[dz], [dy], [dx]])
    a = fixed.numpy()[:, here[0], here[1], here[2]]
    b = moving.numpy()[:, there[0], there[1], there[2]]
    near = ((a - b) ** 2).sum(axis=0)
    wins = []
    for _ in range(20):
        other = random.permutation(b.shape[1])
        far = ((a - b[:, other]) ** 2).sum(axis=0)
        wins.append((near < far)[other != np.arange(len(other))].mean())
    return float(np.mean(wins))


def random_projection() -> tuple[torch.Tensor, torch.Tensor]:
    """The control: 12 random directions of the standardized channels."""
    fixed, moving = (v.float() for v in feature_pair())
    both = torch.cat((fixed.flatten(1), moving.flatten(1)), dim=1)
    mean, deviation = both.mean(dim=1), both.std(dim=1)
    matrix = torch.randn(12, CHANNELS, generator=torch.Generator().manual_seed(3))
    return tuple(
        torch.einsum(
            "ck,kzyx->czyx", matrix, (v - mean.view(-1, 1, 1, 1)) / deviation.view(-1, 1, 1, 1)
        )
        for v in (fixed, moving)
    )


@every_variant
def test_corresponding_cells_are_nearer_than_others_and_more_so_than_by_chance(
    kind: str, changes: dict
) -> None:
    features = reduced(kind, **changes)
    for _ in range(200 if "literal" in changes else 5):
        features.update(true_displacement())
    control = separation(*random_projection())
    found = separation(*features.volumes())
    assert 0.5 < control < 0.9
    assert found > 0.95
    assert found > control + 0.08


# --- learning -------------------------------------------------------------------------------------


def test_a_network_with_a_linear_path_starts_as_whitened_pca() -> None:
    pca, untrained = reduced("pca"), reduced("dynamic", warm_up=0)
    for a, b in zip(pca.volumes(), untrained.volumes(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=0)


@every_variant
def test_an_update_changes_the_features_only_when_the_reduction_is_dynamic(
    kind: str, changes: dict
) -> None:
    features = reduced(kind, **changes)
    before = [v.clone() for v in features.volumes()]
    features.update(true_displacement())
    same = all(torch.equal(a, b) for a, b in zip(before, features.volumes(), strict=True))
    assert features.learns == (kind == "dynamic")
    assert same == (kind != "dynamic")


def test_updates_bring_corresponding_cells_nearer_than_training_without_the_registration() -> None:
    """The gradient of the registration arrives: the two runs differ in ``balance`` only."""

    def gap(balance: float) -> float:
        features = reduced("dynamic", balance=balance)
        for _ in range(15):
            features.update(true_displacement())
        pairs = _Correspondences(features, true_displacement())
        fixed, moving = pairs.sample(torch.arange(pairs.count))
        count = len(fixed)
        latents = features._encode(torch.cat((fixed, moving)))
        latents = (latents - latents.mean(dim=0)) / latents.std(dim=0)
        return float((latents[:count] - latents[count:]).square().sum(dim=1).mean())

    assert gap(1.0) < 0.97 * gap(0.0)


def test_correspondences_are_the_displaced_cells_inside_both_foregrounds() -> None:
    features = reduced("pca")
    fixed_share, moving_share = shares()
    pairs = _Correspondences(features, true_displacement() + 0.3)  # rounds to the nearest cell
    rows = features._rows
    volumes = []
    start = 0
    for share in (fixed_share, moving_share):
        mask = (share > 0.25).numpy()
        volume = np.full((*SHAPE, rows.shape[1]), np.nan, np.float32)
        volume[mask] = rows[start : start + mask.sum()].numpy()
        start += mask.sum()
        volumes.append(volume)
    expected = []
    dx, dy, dz = SHIFT
    for z, y, x in np.argwhere((fixed_share > 0.25).numpy()):
        k, j, i = z + dz, y + dy, x + dx
        inside = 0 <= k < SHAPE[0] and 0 <= j < SHAPE[1] and 0 <= i < SHAPE[2]
        if inside and moving_share[k, j, i] > 0.25:
            expected.append((volumes[0][z, y, x], volumes[1][k, j, i]))
    assert pairs.count == len(expected) > 500
    fixed, moving = pairs.sample(torch.arange(pairs.count))
    np.testing.assert_array_equal(fixed.numpy(), np.stack([a for a, _ in expected]))
    np.testing.assert_array_equal(moving.numpy(), np.stack([b for _, b in expected]))


def test_a_displacement_that_leads_out_of_everything_is_survived() -> None:
    features = reduced("dynamic")
    features.update(torch.full((3, *SHAPE), 1000.0))
    assert all(torch.isfinite(v).all() for v in features.volumes())


@every_variant
def test_the_same_seed_gives_the_same_features_bit_by_bit(kind: str, changes: dict) -> None:
    runs = []
    for seed in (4, 4, 5):
        torch.manual_seed(seed * 31)  # whatever the caller has done
        features = reduced(kind, seed, **changes)
        features.update(true_displacement())
        runs.append(features.volumes()[0])
    assert torch.equal(runs[0], runs[1])
    assert torch.equal(runs[0], runs[2]) == (kind == "pca")


def test_the_callers_random_numbers_are_left_alone() -> None:
    torch.manual_seed(9)
    before = torch.random.get_rng_state()
    reduced("dynamic").update(true_displacement())
    assert torch.equal(torch.random.get_rng_state(), before)


def test_fewer_channels_than_the_projection_are_no_obstacle() -> None:
    fixed, moving = (v[:20] for v in feature_pair())
    features = ReducedFeatures(fixed, moving, *shares(), CELLS, settings("dynamic"), 0)
    assert features.volumes()[0].shape == (12, *SHAPE)
    assert float(features.latent_deviation().min()) > 0.1


def test_a_wish_to_cancel_is_heard_while_the_network_warms_up() -> None:
    calls = []

    def check() -> None:
        calls.append(1)
        if len(calls) == 2:
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        ReducedFeatures(*feature_pair(), *shares(), CELLS, settings("static"), 0, check)


# --- the autoencoder ------------------------------------------------------------------------------


def test_the_losses_of_the_autoencoder_follow_their_formulas() -> None:
    """Mean square over batch and channels; KL divergence summed over latents, mean over batch."""
    torch.manual_seed(0)
    model = Autoencoder(20, 4, 16)
    values = torch.randn(50, 20)
    found = model.losses(values, torch.Generator().manual_seed(3))
    mean, log_variance = model.encode(values)
    noise = torch.randn(50, 4, generator=torch.Generator().manual_seed(3))
    decoded = model.decode(mean + noise * torch.exp(log_variance / 2))
    expected = ((decoded - values) ** 2).mean()
    torch.testing.assert_close(found[0], expected)
    prior = torch.distributions.Normal(0.0, 1.0)
    posterior = torch.distributions.Normal(mean, torch.exp(log_variance / 2))
    divergence = torch.distributions.kl_divergence(posterior, prior).sum(dim=1).mean()
    torch.testing.assert_close(found[1], divergence)


def test_the_literal_network_has_the_papers_layers() -> None:
    model = Autoencoder(256, 12, 128)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters() if "weight" in name}
    assert sorted(shapes.values()) == sorted(
        [(128, 256), (12, 128), (12, 128), (128, 12), (256, 128)]
    )
    assert any(isinstance(m, torch.nn.GELU) for m in model.modules())


def test_the_registrations_gradient_reaches_the_encoder_only() -> None:
    model = Autoencoder(20, 4, 16, torch.linalg.qr(torch.randn(20, 4))[0])
    chosen = {id(p) for p in model.encoder_parameters()}
    names = {n for n, p in model.named_parameters() if id(p) in chosen}
    assert names == {
        "encoder.0.weight", "encoder.0.bias", "mean.weight", "mean.bias", "linear_mean.weight",
    }  # fmt: skip
