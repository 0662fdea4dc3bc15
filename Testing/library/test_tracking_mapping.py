"""Points through any transform file, in both directions."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nodule_scene import Translation

from GlideRegLib.errors import InputError
from GlideRegLib.field import DisplacementField
from GlideRegLib.geometry import Grid
from GlideRegLib.tracking.mapping import FileMapping, SwappedMapping, uncertainty_of

GRID = Grid((40, 36, 30), (2.0, 2.0, 2.5), (-30.0, 10.0, -90.0), (0, -1, 0, 1, 0, 0, 0, 0, 1))


def smooth_field() -> DisplacementField:
    """About 12 mm of smooth motion over GRID."""
    z, y, x = torch.meshgrid(*[torch.linspace(0, 3, n) for n in GRID.shape], indexing="ij")
    vectors = torch.stack((5 * torch.sin(x + y), 4 * torch.cos(y - z), 8 * torch.sin(z + 0.5 * x)))
    return DisplacementField(vectors.float(), GRID)


def affine() -> sitk.AffineTransform:
    transform = sitk.AffineTransform(3)
    transform.SetMatrix((1.1, 0.2, 0, -0.1, 0.9, 0.05, 0, 0.1, 1.05))
    transform.SetTranslation((25.0, -14.0, 40.0))
    return transform


def bspline() -> sitk.Transform:
    image = GRID.copy_to_sitk(sitk.Image(list(GRID.size), sitk.sitkFloat32))
    transform = sitk.BSplineTransformInitializer(image, [5, 5, 5])
    values = np.random.default_rng(1).uniform(-14, 14, transform.GetNumberOfParameters())
    transform.SetParameters(values.tolist())
    return transform


TRANSFORMS = {
    "affine": affine,
    "displacement field": lambda: smooth_field().to_sitk_transform(),
    "composite": lambda: sitk.CompositeTransform([affine(), smooth_field().to_sitk_transform()]),
    "B-spline": bspline,
}


def inner_points(count: int = 40) -> np.ndarray:
    share = np.random.default_rng(0).uniform(0.15, 0.85, (count, 3))
    return GRID.to_physical(share * (np.asarray(GRID.size) - 1))


@pytest.mark.parametrize("name", TRANSFORMS)
def test_the_inverse_brings_points_back(name: str) -> None:
    mapping = FileMapping(TRANSFORMS[name](), GRID)
    points = inner_points()
    moved = mapping.transform_points(points)
    assert np.linalg.norm(moved - points, axis=1).max() > 4
    back = mapping.transform_points(mapping.inverse_points(moved))
    assert np.linalg.norm(back - moved, axis=1).max() <= 0.011
    assert np.linalg.norm(mapping.inverse_points(moved) - points, axis=1).max() < 0.1


def test_a_point_beyond_the_fixed_image_gets_a_place_beyond_it() -> None:
    vectors = torch.zeros(3, *GRID.shape)
    vectors[2] = 20.0
    mapping = FileMapping(DisplacementField(vectors, GRID).to_sitk_transform(), GRID)
    top = GRID.to_physical(np.array([[20.0, 18.0, 29.0]])) + np.array((0, 0, 12.0))
    found = mapping.inverse_points(top + np.array((0, 0, 20.0)))
    assert not GRID.contains(found)[0]
    assert np.linalg.norm(found - top) < 1.5


def test_swapping_exchanges_the_directions_and_keeps_the_uncertainty() -> None:
    mapping = Translation(expected_mm=1.5)
    swapped = SwappedMapping(mapping)
    points = inner_points(3)
    assert np.allclose(swapped.transform_points(points), mapping.inverse_points(points))
    assert np.allclose(swapped.inverse_points(points), mapping.transform_points(points))
    assert np.allclose(uncertainty_of(swapped)(points), 1.5)
    assert uncertainty_of(SwappedMapping(Translation())) is None
    assert uncertainty_of(FileMapping(affine(), GRID)) is None


def test_a_field_that_goes_to_infinity_gets_a_sentence() -> None:
    vectors = torch.zeros(3, *GRID.shape)
    vectors[:, 0, 0, 0] = float("nan")
    mapping = FileMapping(DisplacementField(vectors, GRID).to_sitk_transform(), GRID)
    with pytest.raises(InputError, match="infinity"):
        mapping.inverse_points(GRID.center[None])


def test_a_singular_matrix_gets_a_sentence() -> None:
    flat = sitk.AffineTransform(3)
    flat.SetMatrix((1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0))
    with pytest.raises(InputError, match="no inverse"):
        FileMapping(flat, GRID).inverse_points(GRID.center[None])
