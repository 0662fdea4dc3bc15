"""What decides whether a finished run still counts: data, settings, weights, peers, code."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import pytest

from GlideRegLib.benchmark.datasets import SAMPLES, Pair, open_dataset
from GlideRegLib.benchmark.datasets.pair import hash_of_all
from GlideRegLib.errors import InputError
from GlideRegLib.methods import Need

#: What a data set is made of here -> one file after the other is changed.
LEARN2REG = [f"{kind}Tr/Toy_0101_000{k}" for kind in ("images", "masks", "labels") for k in (0, 1)]
LUNG250M = [f"{kind}Tr/case_001_{k}.nii.gz" for kind in ("images", "masks") for k in (1, 2)]
MANIFEST = ["f.nii.gz", "m.nii.gz", "names.csv", "fl/liver.nii.gz", "ml/liver.nii.gz", "mask.mha"]
ROW = "fixed,moving,fixed_labels,moving_labels,names,fixed_mask,moving_mask\n"


def test_what_a_method_needs_has_an_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Need.package("PIL", "").identity().startswith("pillow ")
    assert Need.package("not_there", "").identity() == ""
    assert Need.distribution("scipy", "").identity() == metadata.version("scipy")
    assert Need.distribution("not-there", "").identity() == ""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("GLIDEREG_WEIGHTS", str(tmp_path))
    for name, need in (
        ("a.exe", Need.program("a.exe", "")),
        ("w.pth", Need.weights(("w.pth",), "")),
    ):
        assert (need.identity(), need.found()) == ("", False)
        (tmp_path / name).write_text("one")
        (tmp_path / name).chmod(0o755)
        first = need.identity()
        (tmp_path / name).write_text("two")
        assert need.found()
        assert first != need.identity() != ""


def write_all(folder: Path, names: list[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def prepared(kind: str, folder: Path) -> tuple[list[str], tuple]:
    """The files of a data set (their contents are never read), and how it is opened."""
    if kind == "learn2reg":
        entry = {s: f"imagesTr/Toy_0101_000{k}.nii.gz" for k, s in enumerate(("fixed", "moving"))}
        (folder / "Toy_dataset.json").write_text(json.dumps({"registration_val": [entry]}))
        return [f"{name}.nii.gz" for name in LEARN2REG], (str(folder),)
    if kind == "lung250m":
        return LUNG250M, (str(folder), "train")
    if kind == "manifest":
        row = "f.nii.gz,m.nii.gz,fl,ml,names.csv,mask.mha,mask.mha\n"
        (folder / "mine.csv").write_text(ROW + row)
        return MANIFEST, (str(folder / "mine.csv"),)
    return ["thorax_popi00/ct.nii.gz", "thorax_lidc0001/ct.nii.gz"], (kind, None, folder)


@pytest.mark.parametrize("kind", ["learn2reg", "lung250m", "manifest", "semi-synthetic"])
def test_every_file_of_a_pair_counts(tmp_path: Path, kind: str) -> None:
    names, opening = prepared(kind, tmp_path)
    write_all(tmp_path, names)

    def fingerprints() -> list[str]:
        return [pair.fingerprint() for pair in open_dataset(*opening).pairs()]

    seen = [fingerprints()]
    assert fingerprints() == seen[0]
    for name in names:
        (tmp_path / name).write_text("changed")
        seen.append(fingerprints())
        assert seen[-1] != seen[-2], name
    assert kind not in SAMPLES or len(seen[0]) == 2


def test_a_folder_counts_with_the_names_in_it(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "liver.nii.gz").write_text("mask")
    first = hash_of_all(tmp_path)
    (tmp_path / "a" / "liver.nii.gz").rename(tmp_path / "a" / "heart.nii.gz")
    assert hash_of_all(tmp_path) != first
    with pytest.raises(InputError, match="does not exist"):
        hash_of_all(tmp_path / "none")


def test_what_a_file_is_for_counts(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("1,2,3")
    pairs = [
        Pair("p", None, None, files={f"fixed {kind}": tmp_path / "p.csv"})
        for kind in ("landmarks", "nodules")
    ]
    assert pairs[0].fingerprint() != pairs[1].fingerprint()


def test_a_table_of_names_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    write_all(tmp_path, [name for name in MANIFEST if name != "names.csv"])
    (tmp_path / "mine.csv").write_text(ROW + "f.nii.gz,m.nii.gz,fl,ml,names.csv,,\n")
    with pytest.raises(InputError, match=r"names\.csv' does not exist"):
        open_dataset(str(tmp_path / "mine.csv")).pairs()
