"""Several time points: prior -> ... -> current, with one identity for each nodule along the chain.

Every step is a :func:`~.track.track` of neighbors in time. What a time point does not show or did
not mark is carried on at its predicted position, so it is the same nodule when it is marked again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..errors import InputError
from ..volume import Volume
from .mapping import Mapping
from .nodules import Nodule, Point, unique_names
from .records import State, Tracking, TrackRow
from .track import TrackSettings, track


@dataclass(frozen=True)
class TimePoint:
    """One scan: its native image (HU), its marked nodules (None: it was not read), and its day
    counted from any fixed date (None: unknown)."""

    volume: Volume
    nodules: Sequence[Nodule] | None = None
    day: float | None = None


@dataclass(frozen=True)
class ChainEntry:
    """One nodule at one time point: ``position`` (LPS mm in that scan; None before it was there),
    whether it was ``marked`` there, and the ``state`` that its step gave it."""

    position: Point | None
    marked: bool
    state: State | None


@dataclass(frozen=True)
class Chain:
    """``steps``: the tracking of each pair of neighbors, in which a row's ``identifier`` is that of
    the whole track. ``tracks``: for every identifier one entry per time point."""

    steps: tuple[Tracking, ...]
    tracks: dict[str, tuple[ChainEntry, ...]]

    @property
    def names(self) -> dict[str, str]:
        """The name of each track, as it was first marked."""
        found: dict[str, str] = {}
        for step in self.steps:
            for row in step:
                found.setdefault(row.identifier, row.name)
        return found


def track_chain(
    points: Sequence[TimePoint],
    mappings: Sequence[Mapping],
    settings: TrackSettings | None = None,
    check: Callable[[], None] = lambda: None,
) -> Chain:
    """Follows nodules through time points in their order, earliest first.

    ``mappings[k]`` lies between ``points[k + 1]`` (fixed) and ``points[k]`` (moving). The
    uncertainty of a nodule that was not marked in between grows with every step (root of the sum of
    squares). Raises :class:`InputError` when the numbers do not fit.
    """
    if len(points) < 2 or len(mappings) != len(points) - 1:
        raise InputError(
            f"A chain of {len(points)} time points needs {max(len(points) - 1, 1)} transforms "
            f"between neighbors, not {len(mappings)}."
        )
    settings = settings or TrackSettings()
    carried = unique_names(points[0].nodules or [])
    tracks = {n.identifier: [ChainEntry(n.center, True, None)] for n in carried}
    steps = []
    for k, mapping in enumerate(mappings):
        check()
        earlier, later = points[k], points[k + 1]
        days = _days(earlier, later, settings)
        chosen = replace(settings, measure=replace(settings.measure, days=days))
        step = track(
            mapping, later.volume, earlier.volume, carried, later.nodules, chosen, check=check
        )
        steps.append(step)
        marked = {nodule.identifier: nodule for nodule in later.nodules or ()}
        for row in step:
            entries = tracks.setdefault(row.identifier, [ChainEntry(None, False, None)] * (k + 1))
            found = row.fixed_center is not None
            entries.append(ChainEntry(row.fixed_position, found, row.state))
        carried = [_carried(row, marked) for row in step]
    return Chain(tuple(steps), {key: tuple(entries) for key, entries in tracks.items()})


def _days(earlier: TimePoint, later: TimePoint, settings: TrackSettings) -> float | None:
    """Days between two time points, as far as they are known."""
    if earlier.day is None or later.day is None:
        return settings.measure.days
    return later.day - earlier.day


def _carried(row: TrackRow, marked: dict[str, Nodule]) -> Nodule:
    """The nodule of a row as the prior of the next step, under the identity of its track."""
    own = marked.get(row.fixed_identifier or "")
    if own is not None:
        return replace(own, name=row.name, identifier=row.identifier)
    return row.as_current()
