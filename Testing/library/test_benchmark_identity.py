"""What decides whether a finished run still counts: data, settings, weights, peers, code."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from GlideRegLib.methods import Need


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
