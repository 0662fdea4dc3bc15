"""Adapters to programs on the PATH: stand-ins check the command line and the files that they are
given, and write a known field in the program's own convention, with writers of their own."""

from __future__ import annotations

import os
import stat
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from GlideRegLib.errors import Cancelled, MethodError, SettingsError
from GlideRegLib.geometry import Grid
from GlideRegLib.methods import find
from GlideRegLib.methods.peers import read_nifti_array, run_program
from GlideRegLib.progress import Progress
from GlideRegLib.result import Result
from GlideRegLib.sample_data.phantom import PhantomPair
from GlideRegLib.settings import Settings, with_changes

#: What every stand-in finds: the field in LPS mm that it has to express in its own way.
PUSH = (3.0, -5.0, 7.0)
#: What the stand-ins share. Written with struct and gzip alone.
SHARED = '''
import gzip, json, struct, sys
import numpy as np

def header(name):
    data = gzip.open(name).read(352)
    size = struct.unpack_from("<4h", data, 40)[1:]
    rows = np.array(struct.unpack_from("<12f", data, 280)).reshape(3, 4)
    assert struct.unpack_from("<h", data, 254)[0] > 0, "an sform is needed"
    return size, rows

def voxels(name):
    data = gzip.open(name).read()
    size, _ = header(name)
    kind = {4: "i2", 16: "f4", 2: "u1"}[struct.unpack_from("<h", data, 70)[0]]
    return np.frombuffer(data, "<" + kind, int(np.prod(size)), 352).reshape(size, order="F")

def write(name, array, intent):
    head = bytearray(352)
    struct.pack_into("<i", head, 0, 348)
    dims = [array.ndim, *array.shape] + [1] * (7 - array.ndim)
    struct.pack_into("<8h", head, 40, *dims)
    struct.pack_into("<h", head, 68, intent)
    struct.pack_into("<hh", head, 70, 16, 32)
    struct.pack_into("<f", head, 108, 352.0)
    head[344:348] = b"n+1\\0"
    with gzip.open(name, "wb") as stream:
        stream.write(bytes(head) + np.asarray(array, "<f4").tobytes(order="F"))

def steps(name, push):
    """The push (LPS mm) in voxels of the file's own axes; its world axes are RAS."""
    _, rows = header(name)
    return np.linalg.solve(rows[:, :3], np.array(push) * [-1, -1, 1])

def value(flag):
    return sys.argv[sys.argv.index(flag) + 1]
'''
REG_F3D = """
assert sys.argv[1:5] == ["-ref", "fixed.nii.gz", "-flo", "moving.nii.gz"], sys.argv
assert value("-sx") == "-5" and value("-ln") == "3" and value("-be") == "0.001"
assert voxels(value("-ref")).std() > 10 and header(value("-ref"))[0] == header(value("-flo"))[0]
open(value("-cpp"), "w").write("control points")
"""
REG_TRANSFORM = """
assert sys.argv[1:3] == ["-ref", "fixed.nii.gz"] and sys.argv[3:5] == ["-disp", "cpp.nii.gz"]
assert open("cpp.nii.gz").read() == "control points"
size, _ = header("fixed.nii.gz")
field = np.empty((*size, 1, 3))
field[...] = np.array(PUSH) * [-1, -1, 1]
write(sys.argv[5], field, 1007)
"""
DEEDS = """
assert (value("-F"), value("-M"), value("-O")) == ("fixed.nii.gz", "moving.nii.gz", "deeds")
assert (value("-l"), value("-G"), value("-L")) == ("5", "8x7x6x5x4", "8x7x6x5x4")
assert value("-Q") == "5x4x3x2x1" and value("-a") == "1.6"
assert voxels("fixed.nii.gz").dtype == np.dtype("<i2")
size, _ = header("fixed.nii.gz")
x, y, z = steps("fixed.nii.gz", PUSH)
count = int(np.prod([n // 4 for n in size]))
flow = np.concatenate([np.full(count, y), np.full(count, x), np.full(count, z)])
flow.astype("<f4").tofile("deeds_displacements.dat")
"""
CORRFIELD = """
assert [value(f) for f in ("-F", "-M", "-m", "-O")] == [
    "fixed.nii.gz", "moving.nii.gz", "mask.nii.gz", "field"]
assert (value("-L"), value("-N"), value("-Q"), value("-R")) == ("16x8", "6x3", "2x1", "3x2")
assert value("-T") == "nxn" and value("-a") == "2.5" and value("-b") == "150"
assert set(np.unique(voxels("mask.nii.gz"))) == {0, 1}
size, _ = header("fixed.nii.gz")
field = np.empty((1, *size, 3))
field[...] = steps("fixed.nii.gz", PUSH)
write("field.nii.gz", field, 0)
"""


def put(folder: Path, name: str, body: str) -> None:
    """A stand-in for a program, found first on the PATH."""
    path = folder / name
    text = f"#!{sys.executable}\n{SHARED}\nPUSH = {PUSH}\n{textwrap.dedent(body)}"
    path.write_text(text, encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in front of the PATH."""
    if os.name != "posix":
        pytest.skip("stand-ins are scripts")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def register(pair: PhantomPair, name: str, **options: object) -> Result:
    settings = with_changes(
        Settings.preset("fast"),
        method=name,
        method_options=options,
        initial="none",
        grid={"spacing_mm": 4.0},
    )
    return find(name).register(pair.fixed, pair.moving, settings)


@pytest.mark.parametrize(
    ("name", "bodies"),
    [
        ("niftyreg", {"reg_f3d": REG_F3D, "reg_transform": REG_TRANSFORM}),
        ("deeds", {"deedsBCV": DEEDS}),
        ("corrfield", {"corrfield": CORRFIELD}),
    ],
)
def test_a_program_gets_its_documented_command_and_its_field_arrives_in_lps(
    name: str, bodies: dict, programs: Path, small_pair: PhantomPair
) -> None:
    for program, body in bodies.items():
        put(programs, program, body)
    result = register(small_pair, name)
    body = result.fixed_grid.to_physical(np.argwhere(result.body)[::5000, ::-1])
    inner = body[result.field.grid.contains(body)]
    moved = result.transform_points(inner) - inner
    assert len(inner) > 10
    np.testing.assert_allclose(moved, np.tile(PUSH, (len(moved), 1)), atol=2e-3)
    assert result.report["method"] == name


def test_nodes_of_deeds_lie_at_the_first_voxel_of_their_block() -> None:
    """A ramp along each axis comes out as that ramp at the voxels, not half a block off."""
    from GlideRegLib.methods.deeds import field_of_deeds

    turned = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    grid = Grid((16, 12, 8), (2.0, 2.0, 2.0), (5.0, 6.0, 7.0), turned)
    k, j, i = np.meshgrid(np.arange(2), np.arange(3), np.arange(4), indexing="ij")
    u, v, w = 0.1 * 4 * j, 0.2 * 4 * i, 0.3 * 4 * k  # voxels: along y, x, z
    values = np.concatenate([part.ravel() for part in (u, v, w)]).astype("<f4")
    field = field_of_deeds(values, grid, 4)
    index = np.array([[1.0, 2.0, 3.0], [5.0, 7.0, 1.0], [11.0, 3.0, 2.0]])
    moved = grid.to_index(field.transform_points(grid.to_physical(index)))
    np.testing.assert_allclose(moved, index * [1.2, 1.1, 1.3], atol=1e-4)


def test_a_program_that_fails_is_one_sentence(programs: Path, small_pair: PhantomPair) -> None:
    put(programs, "deedsBCV", "print('no license'); sys.exit(3)")
    with pytest.raises(MethodError, match=r"^The program 'deedsBCV' failed \(no license\)\.$"):
        register(small_pair, "deeds")
    put(programs, "deedsBCV", "pass")
    with pytest.raises(MethodError, match="without writing"):
        register(small_pair, "deeds")


def test_a_field_that_cannot_be_used_is_refused(programs: Path, small_pair: PhantomPair) -> None:
    put(programs, "deedsBCV", DEEDS.replace("np.full(count, x)", "np.full(count, np.nan)"))
    with pytest.raises(MethodError, match="NaN"):
        register(small_pair, "deeds")
    put(programs, "corrfield", CORRFIELD.replace("(1, *size, 3)", "(1, 5, *size[1:], 3)"))
    with pytest.raises(MethodError, match="another grid"):
        register(small_pair, "corrfield")


def test_a_missing_program_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, small_pair: PhantomPair
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SettingsError, match=r"^NiftyReg reg_f3d needs .*niftyreg.*\.$"):
        register(small_pair, "niftyreg")


def ended_within(seconds: float, process: int) -> bool:
    """Whether a process is gone, or only waits to be collected; a killed one may take a moment."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            status = Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
        except (FileNotFoundError, ProcessLookupError):
            return True
        if status.rsplit(")", 1)[1].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


def test_cancelling_ends_the_program_and_its_children(programs: Path) -> None:
    put(
        programs,
        "sleeper",
        """
        import os, subprocess, time
        child = subprocess.Popen(["sleep", "60"])
        open("child.tmp", "w").write(str(child.pid))
        os.replace("child.tmp", "child")
        time.sleep(60)
        """,
    )
    wish = Progress(should_cancel=(programs / "child").exists)
    with pytest.raises(Cancelled):
        run_program([str(programs / "sleeper")], programs, wish)
    child = int((programs / "child").read_text(encoding="utf-8"))
    assert ended_within(5.0, child)


@pytest.mark.parametrize("content", [b"", b"x" * 400, b"\x5c\x01\x00\x00" + bytes(348)])
def test_files_that_hold_no_field_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "field.nii"
    with pytest.raises(MethodError, match="not written"):
        read_nifti_array(path)
    path.write_bytes(content)
    with pytest.raises(MethodError, match=r"(no NIfTI file|damaged)\.$"):
        read_nifti_array(path)
