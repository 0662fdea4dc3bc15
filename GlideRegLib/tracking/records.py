"""What tracking hands back: one row per nodule, as plain values that go to JSON and return.

All positions are LPS mm, each in the image that its name says; the *moving* image is the prior,
the *fixed* image the current scan.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Literal, get_args

from ..errors import InputError
from .nodules import Nodule, Point, as_point

if TYPE_CHECKING:
    from ..volume import Volume
    from .growth import Growth
    from .measures import Measurement

SCHEMA = "glidereg-nodules-1"

State = Literal[
    "matched", "review", "ambiguous", "new", "resolved", "outside field of view", "predicted"
]
Decision = Literal["open", "confirmed", "corrected", "rejected"]
#: Whose voxels were measured: those that were marked, those that were segmented here, or none.
Method = Literal["", "marked", "segmented"]
STATES: tuple[State, ...] = get_args(State)
DECISIONS: tuple[Decision, ...] = get_args(Decision)


@dataclass(frozen=True)
class Refinement:
    """What the local search found: ``shift`` (LPS mm), normalized correlation at the place that
    the field predicts (``score_before``) and at the best place nearby (``score``), whether it was
    ``accepted``, and if not, why."""

    shift: Point
    score_before: float
    score: float
    accepted: bool
    reason: str = ""


@dataclass(frozen=True)
class TrackRow:
    """One nodule through two time points.

    ``identifier``: UUID of the track, that of the prior nodule (of the current one when new).
    ``moving_center`` and ``fixed_center``: where it was marked; None on the side that lacks it.
    ``field_position``: where the field carries the prior nodule in the fixed image;
    ``predicted_position``: the same after local refinement, if that was accepted.
    ``moving_predicted``: where the field carries a nodule that only the fixed image has.
    ``distance_mm``: from ``predicted_position`` to ``fixed_center``. ``uncertainty_mm``: expected
    error of the field there (None: not known). ``candidates``: marked nodules of the fixed image
    within the gate. ``moving_identifier`` and ``fixed_identifier``: those of the marked nodules.
    Measurements are taken on the native images, by the method beside them. ``decision`` is the
    clinician's; of a rejected row ``rejected_from`` is the one before. ``by_hand``: the clinician
    added the row. ``moving_mask`` and ``fixed_mask``: the voxels that were measured (uint8,
    cropped, on those of the native image); they go to files of their own, not to JSON
    (:mod:`.masks`).
    """

    identifier: str
    name: str
    state: State
    moving_center: Point | None = None
    fixed_center: Point | None = None
    field_position: Point | None = None
    predicted_position: Point | None = None
    moving_predicted: Point | None = None
    distance_mm: float | None = None
    uncertainty_mm: float | None = None
    candidates: int = 0
    refinement: Refinement | None = None
    moving_identifier: str | None = None
    fixed_identifier: str | None = None
    moving_measurement: Measurement | None = None
    fixed_measurement: Measurement | None = None
    moving_method: Method = ""
    fixed_method: Method = ""
    growth: Growth | None = None
    remarks: tuple[str, ...] = ()
    decision: Decision = "open"
    rejected_from: Decision = "open"
    by_hand: bool = False
    moving_mask: Volume | None = field(default=None, compare=False, repr=False)
    fixed_mask: Volume | None = field(default=None, compare=False, repr=False)

    @property
    def moving_position(self) -> Point | None:
        """Where to look in the moving image: as marked, else as the field says."""
        return self.moving_center or self.moving_predicted

    @property
    def fixed_position(self) -> Point | None:
        """Where to look in the fixed image: as marked, else as predicted."""
        return self.fixed_center or self.predicted_position

    def as_current(self) -> Nodule:
        """The nodule of the fixed image, under the identity of the track.

        It is located where it was marked or measured, or a clinician confirmed its prediction.
        """
        agreed = self.state == "predicted" and self.decision == "confirmed"
        known = self.fixed_center is not None or self.fixed_measurement is not None
        located = known or agreed
        return Nodule(
            self.name,
            self.fixed_position,
            self.fixed_mask,
            identifier=self.identifier,
            located=located,
            uncertainty_mm=0.0 if located else self.uncertainty_mm or 0.0,
            measurement=self.fixed_measurement,
            method=self.fixed_method,
        )

    def to_dict(self) -> dict:
        """Plain values for JSON."""
        values = asdict(replace(self, moving_mask=None, fixed_mask=None))
        return plain_values({k: v for k, v in values.items() if k not in _MASKS})

    @classmethod
    def from_dict(cls, data: dict) -> TrackRow:
        """The inverse of :meth:`to_dict`. Raises :class:`InputError` for what is no row."""
        try:
            names = {f.name for f in fields(cls)}.difference(_MASKS)
            values = {name: data[name] for name in names if name in data}
            for name in _POINTS:
                if values.get(name) is not None:
                    values[name] = as_point(values[name])
            for name, kind in _parts().items():
                if values.get(name) is not None:
                    values[name] = _restored(kind, values[name])
            values["remarks"] = tuple(values.get("remarks") or ())
            row = cls(**values)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise InputError(f"The list of nodules holds a row that is damaged ({error}).") from (
                error
            )
        decisions = {row.decision, row.rejected_from}
        if row.state not in STATES or not decisions <= set(DECISIONS):
            raise InputError(
                f"The list of nodules holds the unknown state '{row.state}' or decision "
                f"'{row.decision}'."
            )
        return row


_MASKS = ("moving_mask", "fixed_mask")
_POINTS = (
    "moving_center",
    "fixed_center",
    "field_position",
    "predicted_position",
    "moving_predicted",
)


def _parts() -> dict[str, type]:
    """The nested records of a row and their types."""
    from .growth import Growth
    from .measures import Measurement

    return {
        "refinement": Refinement,
        "moving_measurement": Measurement,
        "fixed_measurement": Measurement,
        "growth": Growth,
    }


@dataclass(frozen=True)
class Tracking:
    """All rows of one pair of time points.

    ``days`` between the acquisitions (None: unknown). ``settings`` are those of the run and
    ``notes`` what a reader should know, plain values. ``quality`` holds the measures against a
    reference, if there was one. ``registration_prior``: which image of the registration was the
    prior, "moving" or "fixed"; in the rows the prior is always called moving.
    """

    rows: tuple[TrackRow, ...]
    days: float | None = None
    settings: dict = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    quality: dict = field(default_factory=dict)
    registration_prior: str = "moving"

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[TrackRow]:
        return iter(self.rows)

    def by_identifier(self, identifier: str) -> TrackRow:
        """The row of a track. Raises KeyError when there is none."""
        for row in self.rows:
            if row.identifier == identifier:
                return row
        raise KeyError(identifier)

    def with_row(self, changed: TrackRow) -> Tracking:
        """The same with the row of that identifier replaced."""
        self.by_identifier(changed.identifier)
        rows = tuple(changed if r.identifier == changed.identifier else r for r in self.rows)
        return replace(self, rows=rows)

    def counts(self) -> dict[str, int]:
        """How many rows have each state; every state is there."""
        return {state: sum(row.state == state for row in self.rows) for state in STATES}

    def current_nodules(self) -> list[Nodule]:
        """What the fixed image holds, as the prior of the next time point: identities, measures and
        the errors of places are kept.

        Who is resolved, or outside of that image, goes on as not located, to be the same nodule
        when it is there again. Rejected rows are left out.
        """
        return [
            row.as_current()
            for row in self.rows
            if row.fixed_position is not None and row.decision != "rejected"
        ]

    def to_dict(self) -> dict:
        """Plain values for ``nodules.json``: schema, notice, frame, units, rows."""
        from ..result import NOTICE

        return {
            "schema": SCHEMA,
            "notice": NOTICE,
            "frame": "LPS",
            "units": "mm",
            "roles": {"moving": "prior", "fixed": "current"},
            "registration": {"prior": self.registration_prior},
            "days": self.days,
            "counts": self.counts(),
            "quality": self.quality,
            "settings": self.settings,
            "notes": list(self.notes),
            "rows": [row.to_dict() for row in self.rows],
        }

    @classmethod
    def from_dict(cls, data: dict) -> Tracking:
        """The inverse of :meth:`to_dict`. Raises :class:`InputError` for another schema."""
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            raise InputError(f"This is no list of nodules of the schema '{SCHEMA}'.")
        return cls(
            tuple(TrackRow.from_dict(row) for row in data.get("rows", ())),
            data.get("days"),
            data.get("settings") or {},
            tuple(data.get("notes") or ()),
            data.get("quality") or {},
            (data.get("registration") or {}).get("prior", "moving"),
        )


def _restored(kind: type, data: dict) -> object:
    """A nested record from its dictionary; lists become the tuples that they were."""
    known = {f.name for f in fields(kind)}
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items() if k in known}
    if kind.__name__ == "Growth":
        from .growth import ThresholdFlag

        values["flags"] = tuple(_restored(ThresholdFlag, f) for f in values.get("flags", ()))
    return kind(**values)


def plain_values(value: object) -> object:
    """Nested values with numpy's numbers and truth values as Python's own."""
    if isinstance(value, dict):
        return {key: plain_values(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain_values(part) for part in value]
    return value.item() if hasattr(value, "item") else value
