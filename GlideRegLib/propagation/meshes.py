"""Surface meshes: the points move, everything else of the file stays byte for byte.

Read without VTK: legacy ``.vtk`` polydata, ``.stl`` and ``.ply``, each as text or binary. A file
that states its frame (Slicer writes SPACE=LPS or SPACE=RAS) is read so, others as LPS mm, as Slicer
does.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..geometry import flip_lps_ras
from .carrier import Carrier

#: What can be read and written.
EXTENSIONS = (".vtk", ".stl", ".ply")


@dataclass(frozen=True)
class Mesh:
    """Points (N, 3) as they stand in the file, normals at them if the file has some, and
    ``rebuilt(points, normals)``, which gives the file's bytes with other ones."""

    points: np.ndarray
    rebuilt: Callable[[np.ndarray, np.ndarray | None], bytes]
    normals: np.ndarray | None = None
    ras: bool = False
    notes: list[str] = field(default_factory=list)


def carry_mesh(
    source: Path, output: Path, carrier: Carrier
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Writes a mesh where it lies in the other image, in the frame and format of its file.

    Returns the points (N, 3) before and after, LPS mm, and notes. Raises :class:`InputError` for
    formats that are not known here and for damaged files.
    """
    mesh = read_mesh(source)
    before = _turned(mesh, mesh.points)
    after = carrier.push(before)
    normals = None
    if mesh.normals is not None:
        normals = _turned(mesh, carrier.push_normals(before, _turned(mesh, mesh.normals)))
    output.write_bytes(mesh.rebuilt(_turned(mesh, after), normals))
    return before, after, mesh.notes


def read_mesh(path: Path) -> Mesh:
    """Reads a mesh file. Raises :class:`InputError` with one sentence."""
    readers = {".vtk": _read_vtk, ".stl": _read_stl, ".ply": _read_ply}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(
            f"'{path}' is no mesh format that is known here; save it as "
            f"{', '.join(EXTENSIONS)} (3D Slicer does)."
        )
    if not path.is_file():
        raise InputError(f"The mesh '{path}' does not exist; check the path.")
    data = path.read_bytes()
    try:
        mesh = reader(data, path)
    except (ValueError, IndexError, KeyError, UnicodeDecodeError) as error:
        raise InputError(
            f"'{path}' cannot be read as a {path.suffix[1:].upper()} mesh; it may be damaged or "
            "cut short."
        ) from error
    if len(mesh.points) == 0 or not np.isfinite(mesh.points).all():
        raise InputError(f"The mesh '{path}' holds no points, or points that are no numbers.")
    ras, stated = _frame(data)
    notes = [] if stated else ["A mesh states no frame; it is read as LPS mm, as Slicer does."]
    return Mesh(mesh.points, mesh.rebuilt, mesh.normals, ras, notes)


def _turned(mesh: Mesh, vectors: np.ndarray) -> np.ndarray:
    """Between the frame of the file and LPS, points or directions."""
    return flip_lps_ras(vectors) if mesh.ras else np.asarray(vectors, dtype=float)


def _frame(data: bytes) -> tuple[bool, bool]:
    """Whether a file is in RAS, and whether it says so: in its head, or in a field of VTK."""
    stated = re.search(rb"SPACE\s*=\s*(LPS|RAS)", data[:2048])
    return (stated is not None and stated[1] == b"RAS", stated is not None)


def _as_text(rows: np.ndarray) -> str:
    """Numbers (N, 3), a row on a line; nine digits hold a single-precision number."""
    return "\n".join(" ".join(f"{v:.9g}" for v in row) for row in rows)


# --- legacy VTK -------------------------------------------------------------------------------

_VTK_TYPES = {b"float": ">f4", b"double": ">f8"}


def _read_vtk(data: bytes, path: Path) -> Mesh:
    lines = data[:512].split(b"\n")
    if not lines[0].startswith(b"# vtk DataFile") or len(lines) < 4:
        raise InputError(f"'{path}' is no legacy VTK file; save it as .vtk, .stl or .ply.")
    binary = lines[2].strip().upper() == b"BINARY"
    kind = re.search(rb"^DATASET\s+(\w+)", data[:4096], re.MULTILINE)
    if kind is None or kind[1].upper() != b"POLYDATA":
        raise InputError(f"'{path}' holds no surface (POLYDATA); save the model's surface.")
    head = re.search(rb"^POINTS\s+(\d+)\s+(\w+)[^\n]*\n", data, re.MULTILINE)
    if head is None or head[2] not in _VTK_TYPES:
        raise ValueError("no points")
    count = int(head[1])
    blocks = [(head.end(), head[2])]
    attributes = re.search(rb"\nPOINT_DATA\s+%d\s*\n" % count, data[head.end() :])
    if attributes is not None:
        start = head.end() + attributes.end()
        stop = re.compile(rb"\nCELL_DATA\s+\d+\s*\n").search(data, start)
        found = re.compile(rb"(?:^|\n)NORMALS\s+\S+\s+(\w+)[^\n]*\n").search(
            data, start, stop.start() if stop else len(data)
        )
        if found is not None:
            blocks.append((found.end(), found[1]))
    parts = [_vtk_block(data, start, type_, count, binary) for start, type_ in blocks]

    def rebuilt(points: np.ndarray, normals: np.ndarray | None) -> bytes:
        pieces, last = [], 0
        for (start, end, _), (_, type_), rows in zip(
            parts, blocks, (points, normals), strict=False
        ):
            new = rows.astype(_VTK_TYPES[type_]).tobytes() if binary else _as_text(rows).encode()
            pieces += [data[last:start], new]
            last = end
        return b"".join([*pieces, data[last:]])

    return Mesh(parts[0][2], rebuilt, parts[1][2] if len(parts) > 1 else None)


def _vtk_block(
    data: bytes, start: int, type_: bytes, count: int, binary: bool
) -> tuple[int, int, np.ndarray]:
    """Begin, end and rows (count, 3) of an array of triples."""
    if binary:
        dtype = np.dtype(_VTK_TYPES[type_])
        end = start + 3 * count * dtype.itemsize
        rows = np.frombuffer(data[start:end], dtype).reshape(count, 3)
        return start, end, rows.astype(float)
    # The numbers may stand in lines of any length.
    numbers = re.compile(rb"\s*(?:\S+\s+){%d}\S+" % (3 * count - 1)).match(data, start)
    values = np.array(numbers[0].split() if numbers else [], dtype=float)
    return start, numbers.end() if numbers else start, values.reshape(count, 3)


# --- STL --------------------------------------------------------------------------------------

_STL_RECORD = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("more", "<u2")])
_STL_NUMBER = rb"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"


def _read_stl(data: bytes, path: Path) -> Mesh:
    count = int.from_bytes(data[80:84], "little")
    if len(data) == 84 + 50 * count and count > 0:
        records = np.frombuffer(data[84:], _STL_RECORD)
        points, place = np.unique(records["corners"].reshape(-1, 3), axis=0, return_inverse=True)

        def rebuilt(moved: np.ndarray, _: np.ndarray | None) -> bytes:
            new = records.copy()
            new["corners"] = moved[place.ravel()].reshape(-1, 3, 3)
            new["normal"] = _face_normals(new["corners"].astype(float))
            return data[:84] + new.tobytes()

        return Mesh(points.astype(float), rebuilt)
    return _read_stl_text(data)


def _read_stl_text(data: bytes) -> Mesh:
    if not data.lstrip().startswith(b"solid"):
        raise ValueError("neither text nor binary")
    triple = rb"\s+".join([rb"(" + _STL_NUMBER + rb")"] * 3)
    found = re.findall(rb"vertex\s+" + triple, data)
    if not re.search(rb"endsolid[^\n]*\s*$", data):
        raise ValueError("cut short")
    corners = np.array(found, dtype=float).reshape(-1, 3, 3)
    points, place = np.unique(corners.reshape(-1, 3), axis=0, return_inverse=True)
    head = data.lstrip().split(b"\n", 1)[0].strip()

    def rebuilt(moved: np.ndarray, _: np.ndarray | None) -> bytes:
        new = moved[place.ravel()].reshape(-1, 3, 3)
        facets = [
            f"facet normal {_as_text(normal[None])}\n outer loop\n"
            + "".join(f"  vertex {_as_text(corner[None])}\n" for corner in corners)
            + " endloop\nendfacet\n"
            for normal, corners in zip(_face_normals(new), new, strict=True)
        ]
        return head + b"\n" + "".join(facets).encode() + b"endsolid\n"

    return Mesh(points, rebuilt)


def _face_normals(corners: np.ndarray) -> np.ndarray:
    """Unit normals (N, 3) of triangles (N, 3, 3) by the right-hand rule; 0 for empty ones."""
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)


# --- PLY --------------------------------------------------------------------------------------

_PLY_TYPES = {
    "char": "i1",
    "int8": "i1",
    "uchar": "u1",
    "uint8": "u1",
    "short": "i2",
    "int16": "i2",
    "ushort": "u2",
    "uint16": "u2",
    "int": "i4",
    "int32": "i4",
    "uint": "u4",
    "uint32": "u4",
    "float": "f4",
    "float32": "f4",
    "double": "f8",
    "float64": "f8",
}


def _read_ply(data: bytes, path: Path) -> Mesh:
    end = re.search(rb"end_header\r?\n", data)
    if not data.startswith(b"ply") or end is None:
        raise ValueError("no header")
    words = [line.split() for line in data[: end.start()].decode("ascii").splitlines()]
    format_ = next(line[1] for line in words if line and line[0] == "format")
    elements = [k for k, line in enumerate(words) if line and line[0] == "element"]
    first = words[elements[0]]
    if first[1] != "vertex":
        raise InputError(f"'{path}' does not begin with its vertices; save it again as .ply.")
    stop = elements[1] if len(elements) > 1 else len(words)
    properties = [line for line in words[elements[0] + 1 : stop] if line and line[0] == "property"]
    order = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": "<"}[format_]
    dtype = np.dtype([(line[2], order + _PLY_TYPES[line[1]]) for line in properties])
    count, names = int(first[2]), dtype.names
    last = end.end()
    if format_ == "ascii":
        rows = data[last:].split(b"\n", count)
        table = np.array([tuple(row.split()) for row in rows[:count]], dtype=dtype)
        rest = rows[count] if len(rows) > count else b""
    else:
        size = count * dtype.itemsize
        if len(data) < last + size:
            raise ValueError("cut short")
        table = np.frombuffer(data[last : last + size], dtype)
        rest = data[last + size :]
    axes, turns = ("x", "y", "z"), ("nx", "ny", "nz")
    has_normals = all(name in names for name in turns)

    def rebuilt(points: np.ndarray, normals: np.ndarray | None) -> bytes:
        new = table.copy()
        for values, columns in ((points, axes), (normals, turns)):
            for k, name in enumerate(columns if values is not None else ()):
                new[name] = values[:, k]
        if format_ != "ascii":
            return data[:last] + new.tobytes() + rest
        lines = [" ".join(f"{v:.9g}" for v in row.tolist()) for row in new]
        return data[:last] + ("\n".join(lines) + "\n").encode() + rest

    def columns(chosen: tuple[str, ...]) -> np.ndarray:
        return np.stack([table[name].astype(float) for name in chosen], axis=1)

    return Mesh(columns(axes), rebuilt, columns(turns) if has_normals else None)
