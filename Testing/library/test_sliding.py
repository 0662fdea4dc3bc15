"""Sliding: the edges' algebra, yielding to shear, compartments, whole runs, and mistakes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_pair import QUICK, as_arguments

from GlideRegLib.cli import main
from GlideRegLib.compartments import lung_mask
from GlideRegLib.errors import InputError, SettingsError
from GlideRegLib.field import jacobian_determinant
from GlideRegLib.geometry import Grid
from GlideRegLib.optimize.energy import MEMBRANE, FeaturePair, roughness
from GlideRegLib.optimize.gauss_newton import GaussNewton
from GlideRegLib.optimize.sliding import SOFTEST, Sliding, SoftEdges, pooled_labels
from GlideRegLib.pipeline import register
from GlideRegLib.prepare import Prepared
from GlideRegLib.sample_data.phantom import PhantomPair, make_phantom_pair
from GlideRegLib.settings import Settings, with_changes
from GlideRegLib.volume import Volume, write_volume

SHAPE = (4, 5, 6)
SETTINGS = with_changes(
    Settings.preset("fast"), features={"encoder": "none"}, grid={"spacing_mm": 4.0}, threads=1
)


def _random_edges() -> SoftEdges:
    torch.manual_seed(1)
    shapes = [[n - (i == axis) for i, n in enumerate(SHAPE)] for axis in range(3)]
    return SoftEdges(tuple(torch.rand(shape) for shape in shapes))


# --- the algebra ----------------------------------------------------------------------------------


def test_stiff_edges_are_the_plain_regularizer() -> None:
    values = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    stiff = SoftEdges.between(torch.zeros(SHAPE), 0.05)
    torch.testing.assert_close(stiff.roughness(values), roughness(values))
    assert Sliding().edges(values) is None


def test_the_roughness_is_the_gradient_of_half_the_weighted_regularizer() -> None:
    edges = _random_edges()
    u = torch.randn(3, *SHAPE, requires_grad=True)
    rates = [
        (torch.diff(u, dim=dim).square() * s).sum()
        for dim, s in zip((1, 2, 3), edges.along, strict=True)
    ]
    (0.5 * (edges.laplacian(u).square().sum() + MEMBRANE * sum(rates))).backward()
    torch.testing.assert_close(edges.roughness(u.detach()), u.grad, rtol=1e-4, atol=1e-5)


def test_the_diagonal_is_that_of_the_matrix() -> None:
    edges = _random_edges()
    diagonal = edges.diagonal()
    for node in ((0, 0, 0), (2, 3, 1), (3, 4, 5)):
        unit = torch.zeros(1, *SHAPE)
        unit[0][node] = 1
        assert float(edges.roughness(unit)[0][node]) == pytest.approx(float(diagonal[node]), 1e-4)


def test_shear_softens_and_stretching_does_not() -> None:
    u = torch.zeros(3, *SHAPE)
    u[2, :, :, 3:] = 2.0  # z jumps across x: sliding
    soft = SoftEdges.of_shear(u, 0.5)
    assert (soft.along[2][:, :, 2] < 0.06).all() and (soft.along[2][:, :, [0, 1, 3, 4]] == 1).all()
    assert (soft.along[0] == 1).all() and (soft.along[1] == 1).all()
    u = torch.zeros(3, *SHAPE)
    u[0, :, :, 3:] = 2.0  # x jumps across x: a gap, or a fold
    assert all((s == 1).all() for s in SoftEdges.of_shear(u, 0.5).along)


def test_both_reasons_multiply_and_some_stiffness_stays() -> None:
    u = torch.zeros(3, *SHAPE)
    u[2, :, :, 3:] = 0.5
    labels = torch.zeros(SHAPE, dtype=torch.int32)
    labels[:, :, 3:] = 7
    borders = SoftEdges.between(labels, 0.4)
    both = Sliding(0.5, borders).edges(u)
    assert both.along[2][0, 0, 2] == pytest.approx(0.5 * 0.4)
    assert both.along[0].min() == 1
    tiny = Sliding(0.01, borders).edges(u)
    assert tiny.along[2].min() == pytest.approx(SOFTEST)


def test_labels_are_pooled_by_majority() -> None:
    labels = torch.zeros(4, 4, 4, dtype=torch.int32)
    labels[:2, :2, :2] = 5
    labels[2:, 2:, 2] = 3  # half of its block
    labels[3, 3, 3] = 3
    pooled = pooled_labels(labels, 2)
    assert pooled.dtype == torch.int32
    assert pooled[0, 0, 0] == 5 and pooled[1, 1, 1] == 3 and int((pooled == 0).sum()) == 6


# --- the solver -----------------------------------------------------------------------------------


def _two_blocks() -> tuple[FeaturePair, torch.Tensor]:
    """Random texture whose right half is shifted by two voxels along z; and which half is which."""
    torch.manual_seed(3)
    texture = torch.randn(4, 28, 16, 16)
    for _ in range(2):
        texture = torch.nn.functional.avg_pool3d(texture[None], 3, 1, 1)[0]
    right = torch.zeros(24, 16, 16, dtype=torch.int32)
    right[:, :, 8:] = 1
    moving = texture[:, 2:26]
    fixed = torch.where(right > 0, texture[:, 4:28], moving)
    return FeaturePair(30 * fixed, 30 * moving), right


@pytest.mark.parametrize("kind", ["shear", "labels"])
def test_two_blocks_slide_without_folds(kind: str) -> None:
    """Bending drags the tissue on both sides of a sliding border along; soft edges let go."""
    pair, right = _two_blocks()
    truth = torch.where(right > 0, 2.0, 0.0)
    borders = SoftEdges.between(right, 0.05)
    soft = Sliding(0.4) if kind == "shear" else Sliding(0.0, borders)
    errors = []
    for sliding in (Sliding(), soft):
        solver = GaussNewton([pair], 20.0, cg_iterations=40, sliding=sliding)
        u = torch.zeros(3, *right.shape)
        for _ in range(12):
            u, _ = solver.step(u)
        errors.append(float((u[2] - truth)[4:-4, 2:-2, 5:11].abs().mean()))
        unit = Grid((16, 16, 24), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
        assert float(jacobian_determinant(u, unit)[2:-2].min()) > 0
    assert errors[1] < 0.75 * errors[0]


# --- compartments and whole runs ------------------------------------------------------------------


@pytest.fixture(scope="module")
def sliding_pair() -> PhantomPair:
    return make_phantom_pair(
        size=(80, 64, 80), spacing=(4.0, 4.0, 4.0), amplitude=20.0, sliding=True
    )


def _errors(pair: PhantomPair, **inputs: object) -> tuple[float, float, dict]:
    """Mean error in mm within 10 mm of the wall, at the lungs' side and outside; the report."""
    from scipy.ndimage import distance_transform_edt

    yields = inputs.pop("yields", "auto")
    settings = with_changes(SETTINGS, refine={"yields": yields}, initial="none")
    result = register(pair.fixed, pair.moving, settings, **inputs)
    lungs = pair.fixed_labels.array == 1
    near = (
        lungs & (distance_transform_edt(pair.cavity) * 4 <= 10),
        ~pair.cavity & (distance_transform_edt(~lungs) * 4 <= 10),
    )
    means = []
    for region in near:
        index = np.argwhere(region)[:, ::-1]
        points = pair.fixed.grid.to_physical(index.astype(float))
        truth = points + pair.displacement[:, index[:, 2], index[:, 1], index[:, 0]].T
        errors = np.linalg.norm(result.transform_points(points) - truth, axis=1)
        means.append(float(errors.mean()))
    return *means, result.report


def test_a_mask_helps_on_both_sides_of_the_pleura(sliding_pair: PhantomPair) -> None:
    plain = _errors(sliding_pair)
    mask = Volume(sliding_pair.cavity.astype(np.uint8), sliding_pair.fixed.grid)
    soft = _errors(sliding_pair, sliding_labels=mask)
    assert soft[0] < 0.9 * plain[0] and soft[1] < 0.9 * plain[1]
    always = _errors(sliding_pair, yields="always")
    assert always[0] < 0.95 * plain[0] and always[1] < plain[1]
    for _, _, report in (plain, soft, always):
        assert report["quality"]["folding_percent"]["body"] == 0
    assert "sliding_labels" in str(soft[2]["provenance"])


def test_the_lungs_are_found(sliding_pair: PhantomPair) -> None:
    grid = sliding_pair.fixed.grid
    fixed = torch.from_numpy(sliding_pair.fixed.array)
    whole = torch.ones(grid.shape, dtype=torch.bool)
    body = torch.from_numpy(sliding_pair.cavity)
    prepared = Prepared(fixed, fixed, body, body, whole, whole, grid, np.eye(4), "ct")
    found = lung_mask(prepared)
    truth = np.isin(sliding_pair.fixed_labels.array, [1, 6])  # lung, vessel
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.9


def test_the_command_line_takes_a_sliding_mask(
    small_files: dict, small_pair: PhantomPair, tmp_path: Path
) -> None:
    mask = tmp_path / "cavity.nii.gz"
    write_volume(mask, Volume(small_pair.cavity.astype(np.uint8), small_pair.fixed.grid))
    arguments = ["register", *as_arguments(small_files), *QUICK, "--sliding-mask", str(mask)]
    assert main([*arguments, "-o", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "result.json").read_text(encoding="utf-8")
    assert "sliding_labels" in text and "cavity" not in text


def test_what_cannot_be_used_gives_one_sentence(small_pair: PhantomPair) -> None:
    ones = Volume(np.ones(small_pair.fixed.grid.shape, np.uint8), small_pair.fixed.grid)
    with pytest.raises(InputError, match="only one value"):
        register(small_pair.fixed, small_pair.moving, SETTINGS, sliding_labels=ones)
    with pytest.raises(SettingsError, match=r"yields.*shear_limit.*border_stiffness"):
        with_changes(
            SETTINGS, refine={"yields": "no", "shear_limit": 0.0, "border_stiffness": 0.0}
        ).check()
