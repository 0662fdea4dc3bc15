"""What a tracking leaves in its folder: lists, pictures and the page. All of it or nothing.

``nodules.csv``, ``nodules.json``, ``nodule-NN.jpg``, and the section on nodules: in the
``report.html`` of the registration that was made for it; for a transform that was given it is a
page of its own, which never takes the place of a registration's report.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..progress import Progress
from .records import Tracking

if TYPE_CHECKING:
    from ..job import Inputs
    from ..result import Result

#: The page, and its name where the report of a registration stands already.
_PAGE, _OTHER_PAGE = "report.html", "nodules.html"
#: What a page of nodules alone begins with, within so many characters.
_OWN_TITLE, _HEAD = "<title>Nodule report</title>", 2000
#: The names of our pictures: those of an earlier run must not stay beside a new table.
_PICTURE = re.compile(r"nodule-\d+\.jpg")


def save_files(
    output: str,
    tracking: Tracking,
    sheets: Sequence[bytes],
    result: Result | None,
    inputs: Inputs,
    progress: Progress,
) -> None:
    """Writes everything; ``sheets`` are the pictures (JPEG), one per row. ``result`` is that of the
    registration, None for a transform that was given.

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
        _write_lists(partial, tracking, names)
        progress.check()
    _remove_others(Path(output), [page, *names])


def save_lists(output: str, tracking: Tracking) -> None:
    """Writes the lists alone. Raises :class:`OutputError` when the folder cannot be written."""
    from ..result import whole_folder

    with whole_folder(output) as partial:
        _write_lists(partial, tracking, None)


def _write_lists(folder: Path, tracking: Tracking, pictures: Sequence[str] | None) -> None:
    from .files import tracking_csv, tracking_json

    (folder / "nodules.csv").write_text(tracking_csv(tracking, pictures), encoding="utf-8")
    (folder / "nodules.json").write_text(tracking_json(tracking), encoding="utf-8")


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
        ours = _PICTURE.fullmatch(file.name) or (file.name == _OTHER_PAGE and _is_ours(file))
        if ours and file.name not in names:
            file.unlink(missing_ok=True)
