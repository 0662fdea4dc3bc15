"""When two scans were made, by their DICOM headers: only the days between them are kept."""

from __future__ import annotations

import datetime
from pathlib import Path

#: Date of acquisition, of the series, of the study: the first that a file has.
_TAGS = ("0008|0022", "0008|0021", "0008|0020")
_NOT_LATER = (
    "By the dates in their headers the current scan was not made after the prior one, so no "
    "doubling times are stated; check which image is the prior."
)


def scan_date(path: str | Path) -> datetime.date | None:
    """The day on which a DICOM folder's largest series was acquired; None for other inputs, and
    where the header has no date."""
    import SimpleITK as sitk

    folder = Path(path)
    if not folder.is_dir():
        return None
    series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    files = [sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), s) for s in series]
    if not files:
        return None
    reader = sitk.ImageFileReader()
    reader.SetFileName(max(files, key=len)[0])
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    found = (_day(reader.GetMetaData(tag)) for tag in _TAGS if reader.HasMetaDataKey(tag))
    return next((day for day in found if day is not None), None)


def _day(text: str) -> datetime.date | None:
    """A DICOM date (20240331; formerly 2024.03.31), None for what is none."""
    try:
        return datetime.datetime.strptime(text.strip().replace(".", ""), "%Y%m%d").date()
    except ValueError:
        return None


def days_between(prior: str | Path, current: str | Path) -> tuple[float | None, str]:
    """Days from the prior to the current scan by their headers (None: not known), and a note, ""
    when there is nothing to say."""
    earlier, later = scan_date(prior), scan_date(current)
    if earlier is None or later is None:
        return None, ""
    days = (later - earlier).days
    if days <= 0:
        return None, _NOT_LATER
    return float(days), f"The days between the scans ({days}) are those of their DICOM headers."
