"""The plan of a benchmark: keys that follow everything decisive, folders that no two pairs share.

The data sets are files that no one reads: a plan only hashes them.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import GlideRegLib
from GlideRegLib.benchmark import identity, plan
from GlideRegLib.benchmark.plan import BenchmarkJob, folder_name, plan_runs
from GlideRegLib.errors import InputError
from GlideRegLib.features.encoders import ENCODERS
from GlideRegLib.methods import METHODS
from GlideRegLib.progress import Progress
from GlideRegLib.settings import Settings, with_changes

PACKAGE = Path(GlideRegLib.__file__).parent


def make_pairs(folder: Path, *identifiers: str) -> Path:
    rows = ["id,fixed,moving"]
    for number, identifier in enumerate(identifiers):
        for side in ("fixed", "moving"):
            (folder / f"{side}{number}.nii.gz").write_text(f"{side} {number}")
        rows.append(f"{identifier},fixed{number}.nii.gz,moving{number}.nii.gz")
    path = folder / "mine.csv"
    path.write_text("\n".join(rows))
    return path


def planned(table: Path, *methods: str, **changes: object) -> list[plan.Run]:
    job = BenchmarkJob((str(table),), methods or ("none",), str(table.parent / "out"), **changes)
    return list(plan_runs(job, Progress()))


def keys(table: Path, *methods: str, **changes: object) -> list[str]:
    return [run.content["key"] for run in planned(table, *methods, **changes)]


# --- folders ----------------------------------------------------------------------------------


def test_no_two_pairs_share_a_folder(tmp_path: Path) -> None:
    names = ("a b", "a_b", "A", "a", "con", "..", "plain-1.0+2")
    folders = [run.folder.parent.name for run in planned(make_pairs(tmp_path, *names))]
    assert len({folder.casefold() for folder in folders}) == len(names)
    assert folders[1] == "a_b"  # a name that needs no change keeps it
    assert folders[-1] == "plain-1.0+2"
    assert "con" not in folders
    alone = planned(tmp_path / "mine.csv", pairs=("a",))
    assert alone[0].folder.parent.name == folders[3]  # whoever else takes part


def test_names_of_folders_are_stable_and_plain() -> None:
    assert folder_name("case1") == "case1"
    assert folder_name("a b").startswith("a_b-")
    assert folder_name("a b") == folder_name("a b", ["x", "a b"])
    assert folder_name("A", ["A", "B"]) == "A"


# --- structures -------------------------------------------------------------------------------


def test_loose_fixed_and_moving_structures_are_for_one_pair_only(tmp_path: Path) -> None:
    table, masks = make_pairs(tmp_path, "p", "q"), tmp_path / "masks"
    for side in ("fixed", "moving"):
        (masks / side).mkdir(parents=True)
    with pytest.raises(InputError, match="can belong to one pair only"):
        planned(table, structures=str(masks))
    (run,) = planned(table, structures=str(masks), pairs=("q",))
    assert run.content["structures"] == str(masks)


def test_structures_below_the_name_of_the_pair_and_their_contents_count(tmp_path: Path) -> None:
    table, masks = make_pairs(tmp_path, "p", "q"), tmp_path / "masks"
    for pair in ("p", "q"):
        for side in ("fixed", "moving"):
            (masks / pair / side).mkdir(parents=True)
            (masks / pair / side / "liver.nii.gz").write_text("mask")
    first = keys(table, structures=str(masks))
    assert first != keys(table)
    (masks / "q" / "moving" / "liver.nii.gz").write_text("another mask")
    second = keys(table, structures=str(masks))
    assert [a == b for a, b in zip(first, second, strict=True)] == [True, False]
    (masks / "names.csv").write_text("id,name\n1,liver\n")
    third = keys(table, structures=str(masks))
    assert not set(third) & set(second)
    masks.rename(tmp_path / "elsewhere")
    assert keys(table, structures=str(tmp_path / "elsewhere")) == third


# --- what a run stands on beside its pair -----------------------------------------------------


def test_weights_at_hand_count_where_they_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_pairs(tmp_path, "p")
    methods = ("glide", "samreg", "glide-local", "convexadam", "none")
    (spec,) = ENCODERS["sam2.1_hiera_small"].weights
    monkeypatch.setattr(identity, "find", lambda specs: None)
    before = keys(table, *methods)
    # What will be fetched counts as if it were here.
    (tiny,) = ENCODERS["sam2.1_hiera_tiny"].weights
    monkeypatch.setattr(identity, "find", lambda specs: tiny if tiny in specs else None)
    assert keys(table, *methods) == before
    monkeypatch.setattr(identity, "find", lambda specs: spec if spec in specs else None)
    after = keys(table, *methods)
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, True, True, True, True]
    none = {"settings": with_changes(Settings(), features={"encoder": "none"})}
    assert identity.encoder_weights(METHODS["glide"], none["settings"].to_dict()) == ""


def test_contents_of_files_that_options_name_count(tmp_path: Path) -> None:
    table, weights = make_pairs(tmp_path, "p"), tmp_path / "w.pth"
    given = {"method_options": {"dinoreg": {"weights": str(weights)}}}
    weights.write_text("one")
    first = keys(table, "dinoreg", **given)
    weights.write_text("two")
    assert keys(table, "dinoreg", **given) != first


def test_a_peer_of_another_version_is_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    table = make_pairs(tmp_path, "p")
    assert planned(table, "deeds")[0].content["needs"] is None
    seen = []
    for build in ("one", "two"):
        (tmp_path / "deedsBCV").write_text(build)
        (tmp_path / "deedsBCV").chmod(0o755)
        seen.append(planned(table, "deeds")[0].content["needs"])
    assert seen[0] != seen[1]
    assert planned(table, "none")[0].content["needs"] == {}


def test_the_code_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "a.py").write_text("1")
    first = identity.hash_of_code(tmp_path)
    (tmp_path / "report" / "page.py").write_text("no run imports it")
    assert identity.hash_of_code(tmp_path) == first
    (tmp_path / "a.py").write_text("2")
    second = identity.hash_of_code(tmp_path)
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert len({first, second, identity.hash_of_code(tmp_path)}) == 3
    table = make_pairs(tmp_path, "p")
    before = keys(table)
    monkeypatch.setattr(identity, "base_version", lambda: ["another"])
    assert keys(table) != before


def test_what_is_left_out_of_the_hash_of_the_code_is_imported_by_no_run() -> None:
    """Follows every import statement, also those inside of functions."""
    reached: set[Path] = set()
    waiting = [PACKAGE / "benchmark" / "run_one.py", *(PACKAGE / "methods").glob("*.py")]
    while waiting:
        path = waiting.pop()
        if path not in reached:
            reached.add(path)
            waiting += imported(path)
    names = {path.relative_to(PACKAGE).as_posix() for path in reached}
    assert {"pipeline.py", "optimize/adam.py", "benchmark/measure.py", "quality.py"} <= names
    assert not [name for name in names if name.startswith(identity.UNUSED)]


def imported(path: Path) -> list[Path]:
    """The files of the package that a file imports."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            for place in (base, *(base / alias.name for alias in node.names)):
                found += [place.with_suffix(".py"), place / "__init__.py"]
    return [file for file in found if file.is_file()]
