"""A transform that elastix really made, through the whole quality assurance.

``data/elastix`` holds its composite (affine, then B-spline) of the small phantom, and where
transformix sends the phantom's landmarks; ``make.py`` beside them made both.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from GlideRegLib.assurance.records import Assessment, Verdict
from GlideRegLib.cli import main
from GlideRegLib.field import read_transform, transform_points
from GlideRegLib.sample_data.phantom import PhantomPair

FOLDER = Path(__file__).parent / "data" / "elastix"
TRANSFORM = FOLDER / "TransformParameters.1-Composite.h5"


@pytest.fixture(scope="module")
def by_transformix() -> np.ndarray:
    """Where elastix' own program sends the fixed landmarks, LPS mm (N, 3)."""
    return np.loadtxt(FOLDER / "points.csv", delimiter=",")


@pytest.fixture(scope="module")
def folder(small_files: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``glidereg assess`` makes of it: page, numbers and Jacobian."""
    output = tmp_path_factory.mktemp("elastix") / "out"
    names = output.parent / "names.csv"
    names.write_text("id,name\n1,lung\n2,heart\n5,liver\n")
    command = ["assess", str(small_files["fixed"]), str(small_files["moving"])]
    command += ["--transform", str(TRANSFORM), "--names", str(names), "-o", str(output)]
    for what in ("landmarks", "labels"):
        for role in ("fixed", "moving"):
            command += [f"--{role}-{what}", str(small_files[f"{role}_{what}"])]
    assert main(command) == 0
    return output


@pytest.fixture(scope="module")
def found(folder: Path) -> Assessment:
    return Assessment.from_dict(
        json.loads((folder / "assessment.json").read_text(encoding="utf-8"))
    )


def test_we_read_the_transform_as_elastix_means_it(
    small_pair: PhantomPair, by_transformix: np.ndarray
) -> None:
    ours = transform_points(read_transform(TRANSFORM), small_pair.fixed_landmarks)
    assert np.abs(ours - by_transformix).max() < 1e-4
    moved = np.linalg.norm(by_transformix - small_pair.fixed_landmarks, axis=1)
    assert moved.max() > 15  # else a wrong direction would not be seen


def test_landmark_errors_are_those_of_transformix(
    found: Assessment, small_pair: PhantomPair, by_transformix: np.ndarray
) -> None:
    after = np.linalg.norm(by_transformix - small_pair.moving_landmarks, axis=1)
    before = np.linalg.norm(small_pair.fixed_landmarks - small_pair.moving_landmarks, axis=1)
    tre = found.find("tre_mean")
    assert (tre.n, tre.verdict) == (300, Verdict.COMPLIANT)
    assert tre.value == pytest.approx(after.mean(), abs=1e-3)
    assert tre.before == pytest.approx(before.mean(), abs=1e-3)
    assert tre.value < 0.2 * tre.before
    assert tre.interval[0] < tre.value < tre.interval[1]
    worst = found.find("tre_max")
    assert worst.value == pytest.approx(after.max(), abs=1e-3)
    assert np.allclose(worst.place, small_pair.fixed_landmarks[after.argmax()], atol=0.01)


@pytest.mark.parametrize(("label", "name"), [(1, "lung"), (2, "heart"), (5, "liver")])
def test_overlaps_are_those_of_simpleitk(
    found: Assessment, small_pair: PhantomPair, label: int, name: str
) -> None:
    fixed, moving = (v.to_sitk() for v in (small_pair.fixed_labels, small_pair.moving_labels))
    nearest = sitk.sitkNearestNeighbor
    carried = sitk.Resample(moving, fixed, sitk.ReadTransform(str(TRANSFORM)), nearest, 0)
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(fixed == label, carried == label)
    dice = found.find("dice", name)
    assert dice.value == pytest.approx(overlap.GetDiceCoefficient(), abs=1e-3)
    assert dice.value > dice.before and dice.verdict is Verdict.COMPLIANT


def test_the_jacobian_is_that_of_itk(found: Assessment, small_pair: PhantomPair) -> None:
    """Inside of the image; at its faces ITK's filter takes what lies outside as no motion."""
    image = small_pair.fixed.to_sitk()
    geometry = (image.GetSize(), image.GetOrigin(), image.GetSpacing(), image.GetDirection())
    field = sitk.TransformToDisplacementField(
        sitk.ReadTransform(str(TRANSFORM)), sitk.sitkVectorFloat64, *geometry
    )
    itk_map = sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(field))
    inside = itk_map[1:-1, 1:-1, 1:-1]
    assert inside.min() > 0 and found.find("folding", "body").value == 0
    assert found.find("folding", "body").verdict is Verdict.COMPLIANT
    lungs = small_pair.fixed_labels.array == 1
    change = 100 * (itk_map[lungs].mean() - 1)
    assert found.find("volume_change_jacobian", "lung").value == pytest.approx(change, abs=0.3)
    assert abs(change) > 3


def test_the_page_holds_verdict_worst_structure_and_what_was_not_measured(
    found: Assessment, folder: Path
) -> None:
    page = (folder / "assessment.html").read_text(encoding="utf-8")
    assert found.verdict.value in page and found.worst_structure in page
    unmeasured = found.find("inverse_consistency_p95", "body")
    assert unmeasured.value is None and unmeasured.verdict is Verdict.NOT_VERIFIED
    assert "CompositeTransform" in page and "TransformParameters" not in page  # no file names
