"""Landmark pairs that guide: their term of the energy, the start, easy and hard pairs, mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small_pair import QUICK, as_arguments

from GlideRegLib.cli import main
from GlideRegLib.constraints import LandmarkConstraints, rigid_motion
from GlideRegLib.errors import InputError, SettingsError
from GlideRegLib.geometry import Grid, transform_points
from GlideRegLib.landmarks import write_landmarks
from GlideRegLib.optimize.normal_equations import NormalEquations
from GlideRegLib.optimize.point_term import ROBUST_SIGMAS, PointTerm
from GlideRegLib.optimize.warping import compose
from GlideRegLib.pipeline import register
from GlideRegLib.result import Result
from GlideRegLib.sample_data.phantom import PhantomPair, make_phantom_pair
from GlideRegLib.settings import Settings, with_changes

GRID = Grid((14, 12, 10), (3.0, 3.0, 3.0), (10.0, -20.0, 30.0))
SETTINGS = with_changes(
    Settings.preset("fast"), features={"encoder": "none"}, grid={"spacing_mm": 4.0}, threads=1
)


def _pairs(count: int, shift: float = 3.0, seed: int = 0) -> LandmarkConstraints:
    """Random points within the inner part of GRID, moved by about ``shift`` mm."""
    rng = np.random.default_rng(seed)
    fixed = GRID.to_physical(rng.uniform(2, np.asarray(GRID.size) - 3, (count, 3)))
    return LandmarkConstraints(fixed, fixed + rng.normal(0, shift, (count, 3)))


def _smooth_field(seed: int, size: float) -> torch.Tensor:
    """A random displacement (3, Z, Y, X) in voxels of GRID, double precision."""
    torch.manual_seed(seed)
    coarse = size * torch.randn(1, 3, 3, 3, 3, dtype=torch.float64)
    return torch.nn.functional.interpolate(coarse, GRID.shape, mode="trilinear")[0]


# --- the term -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [1.0, 25.0])
def test_the_gradient_is_that_of_the_energy_under_composition(shift: float) -> None:
    term = PointTerm(_pairs(5, shift), GRID, 2.0)
    # u is linear in x: composing it on the lattice is then exact, and so must the gradient be.
    rates = torch.tensor([[0.2, -0.1, 0.0], [0.1, -0.3, 0.1], [0.0, 0.2, 0.1]], dtype=torch.float64)
    u = torch.einsum("ij,jzyx->izyx", rates, GRID.index_tensor().double()) - 0.7
    step = _smooth_field(2, 1.0)
    right = torch.zeros_like(u)
    term.linearize(u).subtract_right(right)
    size = 1e-4
    ahead, behind = (float(term.energy(compose(u, s * step))) for s in (size, -size))
    numerical = (ahead - behind) / (2 * size)
    # ``right`` is minus half the gradient, as in the data term.
    assert -2 * float((right * step).sum()) == pytest.approx(numerical, rel=1e-4)


def test_the_matrix_is_symmetric_and_its_diagonal_is_the_diagonal() -> None:
    equations = PointTerm(_pairs(4), GRID, 2.0).linearize(_smooth_field(3, 0.3).float())
    a, b = torch.randn(2, 3, *GRID.shape, generator=torch.Generator().manual_seed(0))
    product_a, product_b = torch.zeros_like(a), torch.zeros_like(b)
    equations.multiply_add(a, product_a)
    equations.multiply_add(b, product_b)
    assert float((b * product_a).sum()) == pytest.approx(float((a * product_b).sum()), rel=1e-4)
    assert float((a * product_a).sum()) >= 0
    diagonal = torch.zeros_like(a)
    equations.add_diagonal(diagonal)
    node = int(diagonal[0].argmax())
    unit, product = torch.zeros_like(a), torch.zeros_like(a)
    unit[0].view(-1)[node] = 1
    equations.multiply_add(unit, product)
    assert float(product[0].view(-1)[node]) == pytest.approx(float(diagonal[0].max()), rel=1e-5)


def test_a_linear_field_is_found_exactly_where_only_landmarks_speak() -> None:
    """Bending costs a linear field nothing inside: the pairs alone decide it there."""
    matrix = np.array([[0.02, 0.01, 0.0], [0.0, -0.03, 0.01], [0.01, 0.0, 0.02]])
    given = _pairs(12)
    moving = given.fixed + (given.fixed - GRID.center) @ matrix.T + [1.5, -1.0, 0.5]
    term = PointTerm(LandmarkConstraints(given.fixed, moving), GRID, 2.0)
    u = torch.zeros(3, *GRID.shape)
    for _ in range(4):
        points = term.linearize(u)
        right = torch.zeros_like(u)
        points.subtract_right(right)
        matrix_of_data = torch.zeros(6, *GRID.shape)
        matrix_of_data[[0, 3, 5]] += 1e-6
        u = compose(u, NormalEquations(matrix_of_data, right, 1e-3, points).solve(400, 1e-10))
    assert float(term.residual(u).norm(dim=0).max()) * GRID.spacing[0] < 0.05


def test_sigma_is_in_mm_and_a_far_pair_loses_its_say() -> None:
    fixed = GRID.center[None]
    one_off = LandmarkConstraints(fixed, fixed + np.array([2.0, 0, 0]))
    zero = torch.zeros(3, *GRID.shape)
    coarse = GRID.pooled(2)
    energies = [
        float(PointTerm(one_off, grid, 2.0).energy(torch.zeros(3, *grid.shape)))
        for grid in (GRID, coarse)
    ]
    assert energies[0] == pytest.approx(energies[1], rel=1e-4)
    assert energies[0] == pytest.approx(1 / (1 + 1 / ROBUST_SIGMAS**2), rel=1e-4)

    def pull(distance: float) -> float:
        wrong = LandmarkConstraints(fixed, fixed + np.array([distance, 0, 0]))
        return float(PointTerm(wrong, GRID, 2.0).linearize(zero).right.norm())

    assert pull(30.0) < 0.1 * pull(5.0)


# --- the start ------------------------------------------------------------------------------------


def _turned(points: np.ndarray) -> np.ndarray:
    angle = np.radians(35)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:3, 3] = (20, -10, 45)
    return transform_points(matrix, points)


@pytest.mark.parametrize("count", [3, 5, 6, 10])
def test_alignment_recovers_a_rigid_motion(count: int) -> None:
    rng = np.random.default_rng(count)
    fixed = rng.uniform(-100, 100, (count, 3))
    alignment = LandmarkConstraints(fixed, _turned(fixed)).alignment()
    probe = rng.uniform(-100, 100, (20, 3))
    np.testing.assert_allclose(transform_points(alignment, probe), _turned(probe), atol=1e-6)


def test_one_and_two_pairs_shift_and_flat_ones_give_no_affine() -> None:
    rng = np.random.default_rng(0)
    fixed = rng.uniform(-100, 100, (8, 3))
    one = LandmarkConstraints(fixed[:1], fixed[:1] + 7).alignment()
    np.testing.assert_allclose(one[:3], np.c_[np.eye(3), [7, 7, 7]])
    flat = fixed * [1, 1, 0.01]
    found = LandmarkConstraints(flat, 1.2 * flat).alignment()
    assert np.linalg.det(found[:3, :3]) == pytest.approx(1)
    spread = LandmarkConstraints(fixed, 1.2 * fixed).alignment()
    assert np.linalg.det(spread[:3, :3]) == pytest.approx(1.2**3)


def test_a_pair_that_the_others_contradict_is_found_and_left_out() -> None:
    rng = np.random.default_rng(1)
    fixed = rng.uniform(-100, 100, (6, 3))
    moving = _turned(fixed) + rng.normal(0, 1, (6, 3))
    assert not LandmarkConstraints(fixed, moving).suspects.any()
    moving[2] += [20, -15, 16]
    pairs = LandmarkConstraints(fixed, moving)
    assert np.flatnonzero(pairs.suspects).tolist() == [2]
    kept = [0, 1, 3, 4, 5]
    expected = rigid_motion(fixed[kept], moving[kept])
    np.testing.assert_allclose(pairs.alignment(), expected, atol=1e-9)


def test_the_spline_passes_the_points_and_levels_off() -> None:
    pairs = _pairs(7, 4.0)
    field = torch.from_numpy(pairs.spline(GRID))
    index = torch.as_tensor(GRID.to_index(pairs.fixed).T, dtype=torch.float32)
    found = GRID.sample(field, index.view(3, -1, 1, 1)).view(3, -1).T.numpy()
    assert np.abs(found - (pairs.moving - pairs.fixed)).max() < 4.0
    twice = LandmarkConstraints(pairs.fixed[[0, 0]], pairs.moving[[0, 0]])
    assert np.isfinite(twice.spline(GRID)).all()


# --- whole runs -----------------------------------------------------------------------------------


def _six_far_apart(points: np.ndarray) -> np.ndarray:
    """Rows of six landmarks, each the farthest from those before."""
    chosen = [int(np.argmax(np.linalg.norm(points - points.mean(axis=0), axis=1)))]
    while len(chosen) < 6:
        gaps = np.linalg.norm(points[:, None] - points[chosen], axis=2).min(axis=1)
        chosen.append(int(gaps.argmax()))
    return np.array(chosen)


def _guides(pair: PhantomPair) -> tuple[np.ndarray, np.ndarray]:
    """Six pairs as an observer places them: with 0.7 mm of error along each axis."""
    rows = _six_far_apart(pair.fixed_landmarks)
    noise = np.random.default_rng(1).normal(0, 0.7, (6, 3))
    return pair.fixed_landmarks[rows], pair.moving_landmarks[rows] + noise


def _others(pair: PhantomPair, result: Result) -> np.ndarray:
    """Errors in mm of the landmarks that guided nothing."""
    rows = np.setdiff1d(np.arange(len(pair.fixed_landmarks)), _six_far_apart(pair.fixed_landmarks))
    errors = result.landmark_errors(pair.fixed_landmarks[rows], pair.moving_landmarks[rows])
    return errors["after"]


def _run(pair: PhantomPair, guides: tuple | None = None, **changes: object) -> Result:
    settings = with_changes(SETTINGS, **changes)
    return register(pair.fixed, pair.moving, settings, landmark_constraints=guides)


@pytest.fixture(scope="module")
def plain_errors(small_pair: PhantomPair) -> np.ndarray:
    return _others(small_pair, _run(small_pair))


def _unfolded(result: Result) -> bool:
    return result.report["quality"]["folding_percent"]["grid"] == 0


def test_an_easy_pair_is_not_worse_elsewhere(
    small_pair: PhantomPair, plain_errors: np.ndarray
) -> None:
    result = _run(small_pair, _guides(small_pair))
    assert _others(small_pair, result).mean() <= plain_errors.mean() + 0.02
    said = result.report["landmark_constraints"]
    assert (said["given"], said["used"], said["suspect_rows"]) == (6, 6, [])
    assert said["residual_mm"]["after"]["mean"] < 1.5 < said["residual_mm"]["before"]["mean"]
    assert _unfolded(result)


def test_one_pair_off_by_30_mm_does_not_tear_the_field(
    small_pair: PhantomPair, plain_errors: np.ndarray
) -> None:
    fixed, moving = _guides(small_pair)
    moving[2] += [20.0, -15.0, 16.6]
    result = _run(small_pair, (fixed, moving))
    errors = _others(small_pair, result)
    assert errors.mean() <= plain_errors.mean() + 0.1
    assert errors.max() <= plain_errors.max() + 3.0
    assert _unfolded(result)


def test_a_patient_who_lies_differently_is_rescued() -> None:
    """The images alone end some cm off: the start is wrong, and what follows cannot repair it."""
    pair = make_phantom_pair(
        size=(80, 64, 80),
        spacing=(4.0, 4.0, 4.0),
        noise=45.0,
        decorrelation=0.5,
        rotation=(10.0, 20.0, 50.0),
        offset=(20.0, -15.0, 60.0),
    )
    plain, guided = _run(pair), _run(pair, _guides(pair))
    errors = [_others(pair, result).mean() for result in (plain, guided)]
    assert errors[0] > 10
    assert errors[1] < 0.2 * errors[0]
    assert _unfolded(guided)


def test_a_deformation_out_of_reach_is_halved() -> None:
    """The start is given and wrong, the motion large, and the fine texture does not correspond."""
    pair = make_phantom_pair(
        size=(80, 64, 80),
        spacing=(4.0, 4.0, 4.0),
        amplitude=90.0,
        noise=120.0,
        decorrelation=1.0,
        vessel_targets=200,
        rotation=(10.0, 10.0, 20.0),
        offset=(30.0, -20.0, -70.0),
    )
    plain, guided = (_run(pair, guides, initial="none") for guides in (None, _guides(pair)))
    errors = [_others(pair, result).mean() for result in (plain, guided)]
    assert errors[0] > 8
    assert errors[1] < 0.5 * errors[0]
    assert any("a field through them" in text for text in guided.report["messages"])
    assert _unfolded(guided)


def test_adam_takes_them_too(small_pair: PhantomPair) -> None:
    adam = {"solver": "adam", "adam_iterations": 40, "adam_bending": 12.0}
    guides = _guides(small_pair)
    residuals = []
    for given in (None, guides):
        result = _run(small_pair, given, refine=adam, initial="none")
        residuals.append(result.landmark_errors(*guides)["after"].mean())
    assert residuals[1] < 0.7 * residuals[0]


# --- files and mistakes ---------------------------------------------------------------------------


def test_the_command_line_takes_files(small_files: dict, tmp_path: Path) -> None:
    arguments = ["register", *as_arguments(small_files), "-o", str(tmp_path / "out"), *QUICK]
    arguments += ["--initial-transform", "none"]
    for role in ("fixed", "moving"):
        arguments += [f"--{role}-constraints", str(small_files[f"{role}_landmarks"])]
    assert main(arguments) == 0
    report = json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))
    assert report["landmark_constraints"]["used"] > 100
    assert "tre_mm" not in report["quality"]  # they guide; they measure nothing


def test_constraints_that_cannot_be_used_give_one_sentence(
    small_pair: PhantomPair, small_files: dict, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    fixed, moving = _guides(small_pair)
    for guides, words in (
        ((fixed, moving[:5]), "6 fixed and 5 moving"),
        ((fixed[:0], moving[:0]), "at least one pair"),
        ((fixed + 1000, moving), "outside the fixed image"),
        ((fixed, -moving), "outside the moving image"),
        ((fixed, moving * np.nan), "finite"),
        ((fixed[:, :2], moving), "three"),
    ):
        with pytest.raises(InputError, match=words):
            _run(small_pair, guides)
    with pytest.raises(SettingsError, match="landmark_sigma_mm"):
        with_changes(SETTINGS, refine={"landmark_sigma_mm": 0.0}).check()
    write_landmarks(tmp_path / "f.csv", fixed)
    only = ["--fixed-constraints", str(tmp_path / "f.csv")]
    assert main(["register", *as_arguments(small_files), "-o", str(tmp_path / "o"), *only]) == 2
    assert "1 fixed and 0 moving constraint files" in " ".join(capsys.readouterr().err.split())
