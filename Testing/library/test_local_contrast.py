"""Local contrast: its squared differences are the local correlation, and when it is left out."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import ndimage

from GlideRegLib.errors import Cancelled
from GlideRegLib.features.local_contrast import correlation, local_contrast
from GlideRegLib.features.pyramid import FeaturePyramid
from GlideRegLib.geometry import Grid
from GlideRegLib.settings import FeatureSettings

SHAPE = (20, 24, 28)
GRID = Grid(SHAPE[::-1], (1.5, 1.5, 1.5), (0.0, 0.0, 0.0))


def texture(seed: int = 0, scale: float = 100.0) -> torch.Tensor:
    values = np.random.default_rng(seed).normal(size=SHAPE)
    smooth = ndimage.gaussian_filter(values, 1.5)
    return torch.from_numpy(smooth * scale / smooth.std()).float()


def pyramid(fixed: torch.Tensor, moving: torch.Tensor, **changes: float) -> FeaturePyramid:
    ones = torch.ones(SHAPE)
    prepared = SimpleNamespace(
        grid=GRID, fixed=fixed, moving=moving, fixed_mask=ones.bool(), modality="ct"
    )
    return FeaturePyramid(prepared, (ones, ones), FeatureSettings(**changes), None)


def test_it_equals_its_definition_with_a_gaussian_neighborhood() -> None:
    """Six 3^3 means are close to a Gaussian of variance 6 * 2/3."""
    image = texture()
    values = image.double().numpy()
    mean = ndimage.gaussian_filter(values, 2.0, mode="nearest")
    contrast = values - mean
    variance = ndimage.gaussian_filter(contrast**2, 2.0, mode="nearest")
    expected = contrast / np.sqrt(variance + 40.0**2)
    found = local_contrast(image, 40.0)[0].numpy()
    inner = (slice(6, -6),) * 3
    np.testing.assert_allclose(found[inner], expected[inner], atol=0.05)
    assert np.abs(expected[inner]).max() > 1


@pytest.mark.parametrize(("gain", "offset"), [(1.0, 300.0), (0.5, -80.0), (3.0, 0.0)])
def test_brightness_and_gain_do_not_change_it_far_above_the_floor(gain, offset) -> None:
    image = texture(scale=1000.0)
    first = local_contrast(image, 1.0)
    torch.testing.assert_close(local_contrast(gain * image + offset, 1.0), first, atol=0.01, rtol=0)
    assert float((local_contrast(-image, 1.0) + first).abs().max()) < 1e-4  # the sign is seen


def test_noise_below_the_floor_stays_small_and_flat_images_give_nothing() -> None:
    assert float(local_contrast(texture(scale=4.0), 40.0).abs().mean()) < 0.1
    assert float(local_contrast(texture(scale=400.0), 40.0).abs().mean()) > 0.5
    assert not local_contrast(torch.full(SHAPE, -900.0), 40.0).any()


def test_pooling_is_the_mean_over_blocks() -> None:
    image = texture()
    whole = local_contrast(image, 40.0)
    expected = whole.view(1, 10, 2, 12, 2, 14, 2).mean(dim=(2, 4, 6))
    torch.testing.assert_close(local_contrast(image, 40.0, 2), expected)


def test_it_can_be_canceled() -> None:
    def check() -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        local_contrast(texture(), 40.0, 1, check)


def test_correlation_is_that_of_numpy_and_counts_only_what_has_weight() -> None:
    first, second = texture(1), 0.6 * texture(1) + 0.8 * texture(2)
    ones = torch.ones(SHAPE)
    expected = np.corrcoef(first.numpy().ravel(), second.numpy().ravel())[0, 1]
    assert correlation(first, second, ones) == pytest.approx(expected, abs=1e-4)
    half = ones.clone()
    half[:10] = 0
    spoiled = second.clone()
    spoiled[:10] = -5 * first[:10]
    part = np.corrcoef(first[10:].numpy().ravel(), second[10:].numpy().ravel())[0, 1]
    assert correlation(first, spoiled, half) == pytest.approx(part, abs=1e-4)
    assert correlation(ones, second, ones) == 0.0


@pytest.mark.parametrize("pooling", [1, 2, 4])
def test_the_pyramid_adds_it_to_mind_with_its_weight(pooling: int) -> None:
    fixed, moving = texture(1), texture(1) + 20 * texture(3, 1.0)
    both = pyramid(fixed, moving, contrast_weight=4.0)
    pair, plain = both.local(pooling), pyramid(fixed, moving, contrast_weight=0.0).local(pooling)
    assert both.compares_contrast
    assert (pair.fixed.shape[0], plain.fixed.shape[0]) == (13, 12)
    torch.testing.assert_close(pair.fixed[:12].float(), plain.fixed.float(), atol=1e-3, rtol=1e-3)
    expected = 2.0 * local_contrast(fixed, 40.0, pooling)
    torch.testing.assert_close(pair.fixed[12:].float(), expected, atol=5e-3, rtol=1e-3)


def test_images_whose_brightness_disagrees_are_compared_by_mind_alone() -> None:
    """Two MR sequences: what is bright in one is dark in the other."""
    assert not pyramid(texture(1), -texture(1)).compares_contrast
    assert not pyramid(texture(1), texture(2)).compares_contrast
    assert pyramid(texture(1), -texture(1)).local(2).fixed.shape[0] == 12
