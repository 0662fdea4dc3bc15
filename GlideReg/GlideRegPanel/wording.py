"""Numbers and sentences in the panel's words. Needs neither Qt nor nodes."""

import math

from slicer.i18n import tr as _


def duration(seconds: float) -> str:
    """A time as people say it: tens of seconds, then minutes, then hours."""
    if seconds < 90:
        return _("{n} s").format(n=max(10, round(seconds / 10) * 10))
    if seconds < 5400:
        return _("{n} min").format(n=round(seconds / 60))
    return _("{n} h").format(n=round(seconds / 3600))


def secondsTaken(seconds: float) -> str:
    """A time that was measured."""
    return _("{n} s").format(n=round(seconds)) if seconds < 90 else duration(seconds)


def progressLine(stage: str, fraction: float, secondsLeft: float | None) -> str:
    """ "Refining · 43 % · about 20 s left"."""
    parts = [stage, _("{n} %").format(n=math.floor(100 * fraction))]
    if secondsLeft is not None and fraction < 1:
        left = _("a few seconds left")
        if secondsLeft >= 10:
            left = _("about {time} left").format(time=duration(secondsLeft))
        parts.append(left)
    return " · ".join(parts)


def shortReason(sentence: str, longest: int = 60) -> str:
    """The start of a sentence that fits on a button, without its period."""
    reason = sentence.split(";")[0].rstrip(". ")
    return reason if len(reason) <= longest else reason.split(",")[0].split(":")[0]


def percent(value: float) -> str:
    return _("{n} %").format(n=f"{value:.3g}")


def megabytes(count: int) -> str:
    """Bytes in megabytes, as the list of weights counts them."""
    return _("{n} MB").format(n=f"{count / 1e6:.0f}" if count >= 1e7 else f"{count / 1e6:.2g}")
