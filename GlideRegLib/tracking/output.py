"""What a tracking leaves in its folder: lists, masks, pictures, the page. All of it or nothing.

``nodules.csv``, ``nodules.json``, the voxels that were measured (:mod:`.masks`),
``nodule-NN.jpg``, and the section on nodules: in the ``report.html`` of the registration that was
made for it; for a transform that was given it is a page of its own, which never takes the place of
a registration's report.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..progress import Progress
from .masks import MASK_FILES, write_masks
from .records import Tracking

if TYPE_CHECKING:
    from ..job import Inputs
    from ..result import Result
    from ..volume import Volume

#: The page, and its name where the report of a registration stands already.
_PAGE, _OTHER_PAGE = "report.html", "nodules.html"
#: What a page of nodules alone begins with, within so many characters.
_OWN_TITLE, _HEAD = "<title>Nodule report</title>", 2000
#: The names of our pictures: those of an earlier run must not stay beside a new table.
_PICTURE = re.compile(r"nodule-\d+\.jpg")


def save_files(
    output: str,
    tracking: Tracking,
    maps: dict[str, Volume],
    sheets: Sequence[bytes],
    result: Result | None,
    inputs: Inputs,
    progress: Progress,
) -> None:
    """Writes everything; ``maps`` are the label maps of :func:`masks_of`, ``sheets`` the pictures
    (JPEG), one per row. ``result`` is that of the registration, None for a given transform.

    Raises :class:`OutputError` when the folder cannot be written.
    """
    from ..report.nodules import nodule_page, nodule_section
    from ..result import whole_folder

    names = [f"nodule-{k:02d}.jpg" for k in range(1, len(sheets) + 1)]
    section = nodule_section(tracking, sheets)
    page = _PAGE if result is not None else _free_page(Path(output), progress)
    with whole_folder(output) as partial:
        if result is None:
            (partial / page).write_text(nodule_page(section), encoding="utf-8")
        else:
            from ..report import build_report

            warped = result.warp(inputs.moving)
            report = build_report(result, inputs.fixed, inputs.moving, warped, nodules=section)
            result.save(partial, inputs.moving, {page: report}, progress.check)
        for name, sheet in zip(names, sheets, strict=True):
            (partial / name).write_bytes(sheet)
        names += _write_lists(partial, tracking, maps, names)
        progress.check()
    _remove_others(Path(output), [page, *names])


def save_lists(output: str, tracking: Tracking, maps: dict[str, Volume]) -> None:
    """Writes lists and masks. Raises :class:`OutputError` when the folder cannot be written."""
    from ..result import whole_folder

    with whole_folder(output) as partial:
        names = _write_lists(partial, tracking, maps, None)
    _remove_others(Path(output), names)


def _write_lists(
    folder: Path,
    tracking: Tracking,
    maps: dict[str, Volume],
    pictures: Sequence[str] | None,
) -> list[str]:
    """Writes lists and masks; returns the names of the masks."""
    from .files import tracking_csv, tracking_json

    (folder / "nodules.csv").write_text(tracking_csv(tracking, pictures), encoding="utf-8")
    (folder / "nodules.json").write_text(tracking_json(tracking), encoding="utf-8")
    return write_masks(folder, tracking, maps)


def _free_page(folder: Path, progress: Progress) -> str:
    """The name of a page of nodules alone: a report that is not ours stays."""
    report = folder / _PAGE
    if not report.exists() or _is_ours(report):
        return _PAGE
    progress.message(f"{_PAGE} in that folder is another report; it stays. See {_OTHER_PAGE}.")
    return _OTHER_PAGE


def _is_ours(page: Path) -> bool:
    """Whether a file is a page of nodules alone, of an earlier run."""
    try:
        with page.open(encoding="utf-8") as stream:
            return _OWN_TITLE in stream.read(_HEAD)
    except (OSError, UnicodeDecodeError):
        return False


def _remove_others(folder: Path, names: Sequence[str]) -> None:
    """Removes what an earlier run left and this one did not write: it belongs to no row now."""
    for file in folder.iterdir():
        ours = _PICTURE.fullmatch(file.name) or file.name in MASK_FILES.values()
        ours = ours or (file.name == _OTHER_PAGE and _is_ours(file))
        if ours and file.name not in names:
            file.unlink(missing_ok=True)
