"""When two scans were made. Dates are read or typed, shown, and forgotten: the scene keeps only the
days between them, with the two volumes for which they count."""

import datetime

import slicer

#: Date of acquisition, of the series, of the study: the first that a file has.
_TAGS = ("0008,0022", "0008,0021", "0008,0020")


def daysBetween(priorDate: str, currentDate: str) -> int | None:
    """Days between two dates written as 2024-03-31; None when both are empty.

    Raises the library's InputError with one sentence.
    """
    from GlideRegLib.errors import InputError

    texts = [priorDate.strip(), currentDate.strip()]
    if not any(texts):
        return None
    if not all(texts):
        raise InputError("Give the dates of both scans, or none.")
    try:
        earlier, later = (datetime.date.fromisoformat(text) for text in texts)
    except ValueError as error:
        raise InputError("Write the dates of the scans as 2024-03-31.") from error
    if later <= earlier:
        raise InputError("The date of the current scan must follow that of the prior.")
    return (later - earlier).days


def scanDate(volume) -> str:
    """The day of a volume that came from Slicer's DICOM database, as 2024-03-31; "" for others."""
    database = getattr(slicer, "dicomDatabase", None)
    uids = (volume.GetAttribute("DICOM.instanceUIDs") or "").split() if volume is not None else []
    if not uids or database is None or not database.isOpen:
        return ""
    for tag in _TAGS:
        digits = str(database.instanceValue(uids[0], tag) or "").strip().replace(".", "")
        try:
            day = datetime.date.fromisoformat(f"{digits[:4]}-{digits[4:6]}-{digits[6:8]}")
        except ValueError:  # empty, or no date
            continue
        return day.isoformat()
    return ""


def scansOf(parameters) -> tuple:
    """The prior and the current volume of a parameter node."""
    volumes = (parameters.movingVolume, parameters.fixedVolume)
    return volumes if parameters.priorScan.value == "moving" else volumes[::-1]


def keepDays(parameters, days: int | None) -> None:
    """Notes the days between the chosen scans; None: they are not known."""
    if days is None and keptDays(parameters) is None:
        return
    parameters.noduleDaysPrior, parameters.noduleDaysCurrent = scansOf(parameters)
    parameters.noduleDays = days or 0


def keptDays(parameters) -> float | None:
    """The days between the chosen scans; None where nobody has given them for these two."""
    same = scansOf(parameters) == (parameters.noduleDaysPrior, parameters.noduleDaysCurrent)
    return float(parameters.noduleDays) if same and parameters.noduleDays > 0 else None
