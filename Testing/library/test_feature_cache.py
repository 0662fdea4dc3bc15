"""The disk cache of encoded slices: what comes back, what is thrown away, and when."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from GlideRegLib.features import cache as module
from GlideRegLib.features.cache import FeatureCache, content_key


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path / "features")


def features(seed: int = 0, cells: int = 100) -> torch.Tensor:
    return torch.randn(256, cells, generator=torch.Generator().manual_seed(seed))


def test_round_trip(cache: FeatureCache) -> None:
    assert cache.get("a") is None
    cache.put("a", features())
    back = cache.get("a")
    assert back.dtype == torch.float16
    assert torch.equal(back, features().half())
    assert torch.equal(FeatureCache(cache.folder).get("a"), back)
    assert cache.get("b") is None
    assert 256 * 100 * 2 < cache.size() < 256 * 100 * 2 + 1000


def test_put_again_replaces(cache: FeatureCache) -> None:
    cache.put("a", features(0))
    cache.put("a", features(1, 7).T)
    assert torch.equal(cache.get("a"), features(1, 7).T.half())
    assert len(list(cache.folder.iterdir())) == 1


def test_switched_off(tmp_path: Path) -> None:
    off = FeatureCache(tmp_path / "features", enabled=False)
    off.put("a", features())
    assert off.get("a") is None and not off.folder.exists()


def test_default_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLIDEREG_CACHE", str(tmp_path / "mine"))
    assert FeatureCache().folder == tmp_path / "mine" / "features"


@pytest.mark.parametrize("damage", ["truncated", "altered", "garbage", "empty", "other"])
def test_damaged_entries_are_missing_and_replaced(damage: str, cache: FeatureCache) -> None:
    cache.put("a", features())
    (path,) = cache.folder.iterdir()
    data = bytearray(path.read_bytes())
    if damage == "altered":
        data[-1000] ^= 1  # one bit of one feature
    elif damage == "other":
        from safetensors.torch import save

        data = save({"something": torch.zeros(3)})
    else:
        data = {"truncated": data[:-500], "garbage": b"\xff" * 99, "empty": b""}[damage]
    path.write_bytes(data)
    assert cache.get("a") is None
    cache.put("a", features())
    assert torch.equal(cache.get("a"), features().half())


def test_least_recently_used_make_room(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, max_bytes=3 * 52_000)  # three entries of 51.2 kB
    for index, key in enumerate("abc"):
        cache.put(key, features(index))
        os.utime(cache._path(key), (1000 + index, 1000 + index))
    assert cache.get("a") is not None  # now the one used last
    cache.put("d", features(3))
    assert cache.get("b") is None
    assert all(cache.get(key) is not None for key in "acd")
    assert cache.size() <= cache.max_bytes
    cache.put("large", features(0, 1000))
    assert cache.get("large") is None, "larger than the whole cache"
    assert cache.get("d") is not None, "and nothing was removed for it"


def test_the_disk_is_not_filled(cache: FeatureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RESERVE", 10**18)
    cache.put("a", features())
    assert cache.get("a") is None


def test_what_float16_cannot_hold_is_not_kept(cache: FeatureCache) -> None:
    for value in (1e6, float("nan"), float("inf")):
        cache.put("a", torch.tensor([1.0, value]))
        assert cache.get("a") is None
    cache.put("a", torch.zeros(0, 3))
    assert cache.get("a") is None


def test_a_folder_that_cannot_be_written_costs_time_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("not a folder")
    cache = FeatureCache(tmp_path / "file")
    cache.put("a", features())
    cache.put("b", features())
    assert cache.get("a") is None
    assert len(caplog.records) == 1 and "not cached" in caplog.text


def test_a_write_that_fails_leaves_nothing(
    cache: FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(module.os, "replace", fail)
    cache.put("a", features())
    assert not list(cache.folder.iterdir())


def test_clear(cache: FeatureCache) -> None:
    for key in "ab":
        cache.put(key, features())
    (cache.folder / "notes.txt").write_text("foreign")
    (cache.folder / "x.features.safetensors.77.part").write_bytes(b"1234")
    size = cache.size()
    assert cache.clear() == size > 2 * 256 * 100 * 2
    assert [path.name for path in cache.folder.iterdir()] == ["notes.txt"]
    assert cache.clear() == 0


def test_keys_of_different_contents_differ() -> None:
    array = np.arange(6, dtype=np.float32)
    parts = [
        ("ab", "c"),
        ("a", "bc"),
        ("abc",),
        (b"abc",),
        ("abc", ""),
        (array,),
        (array.reshape(2, 3),),
        (array.reshape(3, 2),),
        (array.astype(np.float64),),
        (array.astype(np.int32),),
        (array.tobytes(),),
        (array + np.float32(1e-6),),
        (torch.tensor([True, False]),),
        (torch.tensor([1, 0], dtype=torch.uint8),),
    ]
    keys = [content_key(*part) for part in parts]
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 64 for key in keys)


def test_keys_of_equal_contents_are_equal() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    key = content_key("v1", array)
    assert content_key("v1", torch.from_numpy(array)) == key
    assert content_key("v1", np.asfortranarray(array)) == key
    assert content_key("v1", array.astype(">f4")) == key
    assert content_key("v1", torch.from_numpy(array.T.copy()).T) == key
    assert content_key(np.ones(())) == content_key(torch.ones((), dtype=torch.float64))
    # Fixed for good: a cache must outlive a new version of Python or NumPy.
    fixed = content_key("v1", b"\0", np.arange(3, dtype=np.float32))
    assert fixed == "3614fb5d2fba8c35013ed525657df662a6699be736ab74500b98a168d6b0ce57"
