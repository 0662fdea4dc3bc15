"""Change between two measurements of one nodule, and the reference thresholds for it.

These are numbers to look up, not advice: a threshold says whether a published size of change was
reached, and why that may mean little here. Research use only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import InputError
from .measures import Measurement

#: Version of :data:`REFERENCE_THRESHOLDS`; a change of any number or source changes it.
THRESHOLDS_VERSION = "1.0"
#: Error of one volume measurement that the range of the doubling time allows for.
VOLUME_ERROR = 0.25

_THICK_SLICE_MM = 1.5
_SMALL_MM = 6.0
_SMALL_GROWTH_PERCENT = 25.0


@dataclass(frozen=True)
class ReferenceThreshold:
    """A published size of change. ``longest_days`` limits the interval it is meant for."""

    name: str
    text: str
    source: str
    value: Callable[[Growth], float]
    limit: float
    inclusive: bool
    longest_days: float | None = None


@dataclass(frozen=True)
class ThresholdFlag:
    """Whether a reference threshold was reached; None where it does not apply.

    ``greyed`` are the reasons why it should be read with reserve, as sentences' ends; empty when
    there is none. ``version`` is that of the table of thresholds.
    """

    name: str
    text: str
    source: str
    reached: bool | None
    greyed: tuple[str, ...]
    version: str = THRESHOLDS_VERSION


@dataclass(frozen=True)
class Growth:
    """Change from an earlier to a later measurement.

    ``volume_change_percent`` is of the earlier volume, ``mean_diameter_change_mm`` later minus
    earlier. ``doubling_time_days`` = days x ln 2 / ln (later / earlier volume): negative when the
    nodule shrank, None without days or without change. ``doubling_time_range_days`` holds the
    shortest and the longest doubling time that errors of +-25 % of either volume allow; None means
    "does not double within any time". ``greyed`` are the reasons why the doubling time should be
    read with reserve. ``flags`` are the reference thresholds, empty unless asked for.
    """

    days: float | None
    volume_change_percent: float
    mean_diameter_change_mm: float
    doubling_time_days: float | None
    doubling_time_range_days: tuple[float | None, float | None] | None
    greyed: tuple[str, ...]
    flags: tuple[ThresholdFlag, ...] = ()

    @property
    def volume_change_text(self) -> str:
        """The change in percent with its sign, as tables show it: "+30"."""
        return _percent_text(self.volume_change_percent)

    @property
    def doubling_time_text(self) -> str:
        """The doubling time in days with its range, as tables show it: "200 (115 to 760)"; "" when
        the days are not known."""
        if self.doubling_time_range_days is None:
            return ""
        shortest, longest = self.doubling_time_range_days
        if shortest is None:
            return "does not double"
        to = f"at least {shortest:.0f}" if longest is None else f"{shortest:.0f} to {longest:.0f}"
        time = self.doubling_time_days
        return f"{'none' if time is None or time < 0 else format(time, '.0f')} ({to})"


REFERENCE_THRESHOLDS: tuple[ReferenceThreshold, ...] = (
    ReferenceThreshold(
        "BTS 2015",
        "volume +25 % or more",
        "British Thoracic Society guideline, Callister et al., Thorax 2015;70 Suppl 2",
        lambda growth: growth.volume_change_percent,
        25.0,
        inclusive=True,
    ),
    ReferenceThreshold(
        "Fleischner 2017",
        "mean diameter +2 mm or more",
        "Fleischner Society, Bankier et al., Radiology 2017;285:584",
        lambda growth: growth.mean_diameter_change_mm,
        2.0,
        inclusive=True,
    ),
    ReferenceThreshold(
        "Lung-RADS v2022",
        "mean diameter + more than 1.5 mm within 12 months",
        "American College of Radiology, Lung-RADS v2022",
        lambda growth: growth.mean_diameter_change_mm,
        1.5,
        inclusive=False,
        longest_days=366.0,
    ),
)


def growth(
    earlier: Measurement,
    later: Measurement,
    days: float | None,
    reference_thresholds: bool = False,
) -> Growth:
    """Change between two measurements ``days`` apart (None when the dates are not known).

    ``reference_thresholds`` adds the flags. Raises :class:`InputError` unless ``days`` is positive
    and both volumes are.
    """
    if days is not None and not (math.isfinite(days) and days > 0):
        raise InputError(f"The later scan must follow the earlier one: {days} days were given.")
    if min(earlier.volume_mm3, later.volume_mm3) <= 0:
        raise InputError("Growth needs two volumes above 0 mm^3.")
    ratio = later.volume_mm3 / earlier.volume_mm3
    percent = 100 * (ratio - 1)
    change = Growth(
        days=days,
        volume_change_percent=percent,
        mean_diameter_change_mm=later.mean_diameter_mm - earlier.mean_diameter_mm,
        doubling_time_days=None if days is None else _doubling_time(ratio, days),
        doubling_time_range_days=None if days is None else _doubling_range(ratio, days),
        greyed=_greyed(earlier, later, percent),
    )
    if not reference_thresholds:
        return change
    flags = tuple(_flag(threshold, change) for threshold in REFERENCE_THRESHOLDS)
    return Growth(**{**vars(change), "flags": flags})


def _doubling_time(ratio: float, days: float) -> float | None:
    logarithm = math.log(ratio)
    return None if abs(logarithm) < 1e-9 else days * math.log(2) / logarithm


def _doubling_range(ratio: float, days: float) -> tuple[float | None, float | None]:
    """Shortest and longest doubling time when both volumes may be wrong; None: never doubles."""
    error = (1 + VOLUME_ERROR) / (1 - VOLUME_ERROR)
    fastest, slowest = ratio * error, ratio / error
    return tuple(_doubling_time(r, days) if r > 1 else None for r in (fastest, slowest))


def _greyed(earlier: Measurement, later: Measurement, percent: float) -> tuple[str, ...]:
    reasons = []
    thickest = max(earlier.slice_thickness_mm, later.slice_thickness_mm)
    if thickest > _THICK_SLICE_MM + 1e-3:
        reasons.append(f"slices of {thickest:.1f} mm are thicker than {_THICK_SLICE_MM} mm")
    smallest = min(earlier.mean_diameter_mm, later.mean_diameter_mm)
    if smallest <= _SMALL_MM:
        reasons.append(f"a diameter of {smallest:.1f} mm is not above {_SMALL_MM:.0f} mm")
    if percent < _SMALL_GROWTH_PERCENT:
        reasons.append(f"a volume change of {_percent_text(percent)} % is below +25 %")
    return tuple(reasons)


def _percent_text(percent: float) -> str:
    """Whole percent with a sign; what is below the limit of growth does not read like it."""
    text = f"{percent:+.0f}"
    if percent < _SMALL_GROWTH_PERCENT <= float(text):
        return f"{math.floor(10 * percent) / 10:+.1f}"
    return "+0" if float(text) == 0 else text


def _flag(threshold: ReferenceThreshold, change: Growth) -> ThresholdFlag:
    value = threshold.value(change)
    reached: bool | None = (
        value >= threshold.limit if threshold.inclusive else value > threshold.limit
    )
    greyed = change.greyed
    if threshold.longest_days is not None:
        if change.days is None:
            reached, greyed = None, (*greyed, "the interval between the scans is not known")
        elif change.days > threshold.longest_days:
            reached = None
            greyed = (*greyed, f"the scans are {change.days:.0f} days apart, more than 12 months")
    return ThresholdFlag(threshold.name, threshold.text, threshold.source, reached, greyed)
