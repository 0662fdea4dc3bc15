"""The benchmark and the methods that it runs: their options, their weights, their imports."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from GlideRegLib.benchmark.baselines import check_names, load
from GlideRegLib.errors import MethodError, SettingsError
from GlideRegLib.methods import METHODS
from GlideRegLib.methods.catalog import DINOV2_FILES, UNIGRADICON_FILES


@pytest.fixture
def no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing in the cache; an empty folder as ``$GLIDEREG_WEIGHTS``."""
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setenv("GLIDEREG_WEIGHTS", str(folder))
    monkeypatch.setenv("GLIDEREG_CACHE", str(tmp_path / "cache"))
    return folder


def test_weights_named_by_an_option_are_not_missing(no_weights: Path, tmp_path: Path) -> None:
    assert "dinov2_vitl14_pretrain.pth" in check_names(("none", "dinoreg"))["dinoreg"]
    with pytest.raises(SettingsError, match="dinov2_vitl14"):
        load("dinoreg")
    given = {"weights": str(tmp_path / "mine.pth")}
    assert check_names(("none", "dinoreg"), {"dinoreg": given}) == {}
    assert load("dinoreg", given) is METHODS["dinoreg"]


@pytest.mark.parametrize(
    ("method", "module", "names"),
    [
        ("dinoreg", "dinoreg", DINOV2_FILES),
        ("unigradicon", "unigradicon", UNIGRADICON_FILES),
        ("unigradicon-io", "unigradicon", UNIGRADICON_FILES),
    ],
)
def test_every_file_that_a_method_takes_is_enough_for_it(
    method: str, module: str, names: tuple[str, ...], no_weights: Path
) -> None:
    """What the method would read, ``missing`` accepts; the sentence says the first name."""
    own = METHODS[method].load()
    (need,) = (need for need in METHODS[method].needs if need.option == "weights")
    assert not need.found() and names[0] in need.what
    for name in names:
        path = no_weights / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
        assert need.found(), f"{name} is not enough"
        assert own.find_weights(names) == path
        path.unlink()


def test_names_of_weights_that_people_have_are_known() -> None:
    """The bare name of the download, those of all sizes, with and without registers."""
    assert "Step_2_final.trch" in UNIGRADICON_FILES
    known = {"dinov2_vitb14_pretrain.pth", "dinov2_vits14_reg4_pretrain.pth"}
    assert known < set(DINOV2_FILES)


SLOW = "import time\ntime.sleep(0.5)\nready = True\n"


def test_imports_of_a_peer_are_not_on_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow package in the place of ants: after ``load`` it is imported."""
    (tmp_path / "ants.py").write_text(SLOW, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "ants", raising=False)
    before = time.monotonic()
    load("ants")
    assert time.monotonic() - before >= 0.5
    assert sys.modules["ants"].ready
    monkeypatch.delitem(sys.modules, "ants")


def test_a_package_that_cannot_be_imported_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ants.py").write_text("raise ImportError('no such symbol')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "ants", raising=False)
    with pytest.raises(MethodError, match=r"^ANTs failed \(no such symbol\)\.$"):
        load("ants")


def test_every_method_with_a_package_imports_it_beforehand() -> None:
    for name, method in METHODS.items():
        if any(need.what.startswith("the Python package") for need in method.needs):
            assert callable(getattr(method.load(), "preload", None)), name
