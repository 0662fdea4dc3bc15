"""Thirty and more things that a user can get wrong: each gives one clear sentence and exit code 2.

Every case runs the real command line. The sentence must name what is wrong, no traceback may
appear, and nothing may be written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from small_pair import QUICK

from GlideRegLib.cli import main

SHAPE = (24, 24, 24)


class Case:
    """A folder with good files, in which a case puts its bad one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        random = np.random.default_rng(0)
        self.array = random.normal(-500, 300, SHAPE).astype(np.float32)
        self.fixed = self.write("fixed.nii.gz", self.array)
        self.moving = self.write("moving.nii.gz", self.array + 1)
        self.output = folder / "out"

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def write(self, name: str, array: np.ndarray, vector: bool = False, shift: float = 0.0) -> str:
        image = sitk.GetImageFromArray(array, isVector=vector)
        image.SetOrigin([shift] * image.GetDimension())
        sitk.WriteImage(image, self.path(name))
        return self.path(name)

    def text(self, name: str, content: str) -> str:
        (self.folder / name).write_text(content, encoding="utf-8")
        return self.path(name)

    def register(self, *options: str, fixed: str = "", moving: str = "") -> list[str]:
        pair = [fixed or self.fixed, moving or self.moving]
        return ["register", *pair, "-o", str(self.output), *QUICK, *options]


def cut_short(case: Case, name: str) -> str:
    whole = (case.folder / "fixed.nii.gz").read_bytes()
    (case.folder / name).write_bytes(whole[: len(whole) // 2])
    return case.path(name)


def raw_cut_short(case: Case) -> str:
    name = case.write("cut.mha", case.array)
    sitk.WriteImage(sitk.ReadImage(name), name, False)
    content = Path(name).read_bytes()
    Path(name).write_bytes(content[: len(content) - 20000])
    return name


def with_nan(case: Case) -> str:
    array = case.array.copy()
    array[3, 4, 5] = np.nan
    return case.write("nan.nii.gz", array)


def four_frames(case: Case) -> str:
    images = [sitk.GetImageFromArray(case.array)] * 4
    sitk.WriteImage(sitk.JoinSeries(images), case.path("4d.nii.gz"))
    return case.path("4d.nii.gz")


def unwritable(case: Case) -> list[str]:
    case.text("file", "in the way")
    return ["register", case.fixed, case.moving, "-o", case.path("file"), *QUICK]


def below_a_file(case: Case) -> list[str]:
    case.text("file", "in the way")
    return ["register", case.fixed, case.moving, "-o", case.path("file/out"), *QUICK]


def landmarks(case: Case, fixed: str, moving: str, suffix: str = ".csv") -> list[str]:
    return case.register(
        "--fixed-landmarks",
        case.text("f" + suffix, fixed),
        "--moving-landmarks",
        case.text("m" + suffix, moving),
    )


def encoder(case: Case, name: str, weights: str) -> list[str]:
    return case.register("--encoder", name, "--weights", weights)


def damaged_weights(case: Case) -> str:
    (case.folder / "sam2.1_hiera_tiny.pt").write_bytes(b"not weights at all" * 100)
    return case.path("sam2.1_hiera_tiny.pt")


def dicom_without_images(case: Case) -> str:
    (case.folder / "dicom").mkdir()
    (case.folder / "dicom" / "readme.txt").write_text("no images here", encoding="utf-8")
    return case.path("dicom")


def affine_2d(case: Case) -> str:
    sitk.WriteTransform(sitk.AffineTransform(2), case.path("flat.tfm"))
    return case.path("flat.tfm")


def deformable(case: Case) -> str:
    field = sitk.Image([8, 8, 8], sitk.sitkVectorFloat64, 3)
    sitk.WriteTransform(sitk.DisplacementFieldTransform(field), case.path("field.h5"))
    return case.path("field.h5")


P = "1,2,3\n4,5,6\n"

CASES: dict[str, tuple[Callable[[Case], list[str]], str]] = {
    "missing fixed": (lambda c: c.register(fixed=c.path("no.nii.gz")), "does not exist"),
    "missing moving": (lambda c: c.register(moving=c.path("no.nii.gz")), "does not exist"),
    "text as image": (lambda c: c.register(fixed=c.text("a.nii.gz", "hello")), "cannot be read"),
    "empty file": (lambda c: c.register(fixed=c.text("a.nrrd", "")), "cannot be read"),
    "cut short, compressed": (
        lambda c: c.register(fixed=cut_short(c, "cut.nii.gz")),
        "cannot be read",
    ),
    "cut short, raw": (lambda c: c.register(moving=raw_cut_short(c)), "cannot be read"),
    "unknown format": (lambda c: c.register(fixed=c.text("a.xyz", "1 2 3")), "cannot be read"),
    "two dimensions": (
        lambda c: c.register(fixed=c.write("2d.nii.gz", c.array[0])),
        "2-D slice",
    ),
    "single slice": (
        lambda c: c.register(fixed=c.write("one.nii.gz", c.array[:1])),
        "2-D slice",
    ),
    "four dimensions": (lambda c: c.register(fixed=four_frames(c)), "4-D with 4 frames"),
    "color": (
        lambda c: c.register(
            fixed=c.write("rgb.nii.gz", np.stack([c.array] * 3, -1).astype(np.uint8), True)
        ),
        "3 values per voxel",
    ),
    "NaN": (lambda c: c.register(moving=with_nan(c)), "NaN"),
    "constant": (
        lambda c: c.register(moving=c.write("c.nii.gz", np.full(SHAPE, 7.0, np.float32))),
        "constant",
    ),
    "too small": (
        lambda c: c.register(fixed=c.write("s.nii.gz", c.array[:, :5])),
        "at least 8",
    ),
    "no overlap": (
        lambda c: c.register(
            "--initial-transform", "none", moving=c.write("far.nii.gz", c.array, shift=5000.0)
        ),
        "overlap",
    ),
    "DICOM folder without images": (
        lambda c: c.register(fixed=dicom_without_images(c)),
        "no DICOM",
    ),
    "CT against MR": (
        lambda c: c.register(moving=c.write("mr.nii.gz", np.abs(c.array))),
        "pairs of one modality",
    ),
    "empty mask": (
        lambda c: c.register("--fixed-mask", c.write("m.nii.gz", np.zeros(SHAPE, np.uint8))),
        "is empty",
    ),
    "mask elsewhere": (
        lambda c: c.register(
            "--moving-mask", c.write("m.nii.gz", np.ones(SHAPE, np.uint8), shift=900.0)
        ),
        "does not overlap",
    ),
    "mask with fractions": (
        lambda c: c.register("--fixed-mask", c.write("m.nii.gz", np.abs(c.array) / 7)),
        "not integers",
    ),
    "labels on one side only": (
        lambda c: c.register("--fixed-labels", c.write("l.nii.gz", np.ones(SHAPE, np.uint8))),
        "moving labels too",
    ),
    "landmark counts differ": (lambda c: landmarks(c, P, "1,2,3\n"), "holds 2 landmarks"),
    "landmarks on one side only": (
        lambda c: c.register("--fixed-landmarks", c.text("f.csv", P)),
        "corresponding pairs",
    ),
    "landmark file missing": (
        lambda c: c.register(
            "--fixed-landmarks", c.path("no.csv"), "--moving-landmarks", c.text("m.csv", P)
        ),
        "does not exist",
    ),
    "landmark file empty": (lambda c: landmarks(c, "", P), "empty"),
    "landmarks not numbers": (lambda c: landmarks(c, "1,2,3\nx,y,z\n", P), "line 2"),
    "landmarks with NaN": (lambda c: landmarks(c, "1,2,nan\n4,5,6\n", P), "line 1"),
    "landmarks of unknown kind": (lambda c: landmarks(c, P, P, ".docx"), ".docx"),
    "broken markups": (lambda c: landmarks(c, "{", "{", ".mrk.json"), "JSON"),
    "unknown encoder": (lambda c: c.register("--encoder", "sam9"), "no encoder 'sam9'"),
    "weights missing": (lambda c: encoder(c, "lite_medsam", c.path("no.pth")), "does not exist"),
    "weights with a wrong hash": (
        lambda c: encoder(c, "sam2.1_hiera_tiny", damaged_weights(c)),
        "sha256",
    ),
    "output is a file": (unwritable, "is a file"),
    "output below a file": (below_a_file, "cannot be written"),
    "initial transform missing": (
        lambda c: c.register("--initial-transform", c.path("no.tfm")),
        "does not exist",
    ),
    "initial transform damaged": (
        lambda c: c.register("--initial-transform", c.text("a.tfm", "hello")),
        "cannot be read as a transform",
    ),
    "initial transform 2-D": (
        lambda c: c.register("--initial-transform", affine_2d(c)),
        "2-D, not 3-D",
    ),
    "initial transform not linear": (
        lambda c: c.register("--initial-transform", deformable(c)),
        "not linear",
    ),
    "spacing out of range": (lambda c: c.register("--spacing", "0.01"), "spacing_mm must be"),
    "unknown preset": (lambda c: c.register("--preset", "hasty"), "hasty"),
    "unknown option": (lambda c: c.register("--sped", "3"), "--sped"),
    "settings with a typing error": (
        lambda c: c.register("--settings", c.text("s.json", json.dumps({"sed": 1}))),
        "'sed' is not one of the settings",
    ),
    "settings not JSON": (lambda c: c.register("--settings", c.text("s.json", "{")), "s.json"),
    "global features without an encoder": (
        lambda c: c.register("--features", "global"),
        "need an encoder",
    ),
    "evaluate without a transform file": (
        lambda c: [
            "evaluate",
            *("--fixed", c.fixed, "--moving", c.moving, "--transform", c.path("no.h5")),
        ],
        "does not exist",
    ),
    "warp with an image as transform": (
        lambda c: [
            "warp",
            *(c.moving, "--transform", c.fixed, "--reference", c.fixed, "-o", c.path("out")),
        ],
        "3 values per voxel",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_wrong_input_gives_one_sentence_and_exit_code_2(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    case = Case(tmp_path)
    make, words = CASES[name]
    arguments = make(case)
    before = sorted(os.listdir(tmp_path))
    code = main(arguments)
    shown = capfd.readouterr().err
    assert code == 2, shown
    assert "Traceback" not in shown
    assert "should not" not in shown  # an internal error
    assert words in shown.replace("\n", " ")
    assert len([line for line in shown.splitlines() if line.startswith("Error:")]) == 1
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_output_folder_gives_one_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    case = Case(tmp_path)
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    code = main(["register", case.fixed, case.moving, "-o", str(locked / "out"), *QUICK])
    assert code == 2
    assert "cannot be written" in capfd.readouterr().err
