"""What an assessment is made of: measures with their verdicts, places to look at, the whole.

Plain values only, so that a panel, a report and ``assessment.json`` show the same. What was not
measured has the value None and is never called good.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from enum import Enum

from .catalog import KINDS, Kind
from .profile import Profile

SCHEMA = "glidereg-assessment-1"
#: The region of what a profile asks of structures when it was measured on none.
NO_STRUCTURE = "structures"
#: What measures are taken of besides structures: no structure may be called so.
OTHER_REGIONS = ("body", "grid", "landmarks", NO_STRUCTURE)


class Verdict(str, Enum):
    """How a measure stands to its criterion.

    ``INFORMATION`` is a measure that the profile does not grade; ``NOT_VERIFIED`` one that it
    grades and that was not measured.
    """

    COMPLIANT = "compliant"
    REVIEW = "review"
    NOT_COMPLIANT = "not compliant"
    NOT_VERIFIED = "not verified"
    INFORMATION = "information"

    @property
    def severity(self) -> int:
        """Larger is worse: information 0, compliant 1, not verified 2, review 3, not compliant 4.
        The overall verdict is the worst one."""
        return _SEVERITY.index(self)


_SEVERITY = (
    Verdict.INFORMATION,
    Verdict.COMPLIANT,
    Verdict.NOT_VERIFIED,
    Verdict.REVIEW,
    Verdict.NOT_COMPLIANT,
)


@dataclass(frozen=True)
class Measure:
    """One number of an assessment.

    ``key`` names the kind (:data:`.catalog.KINDS`), ``region`` what it was measured on: "body",
    "grid", "landmarks" or the name of a structure; together they are unique. ``value`` is None
    when it was not measured, and ``note`` then says why. ``before`` is the same without the
    transform. ``interval`` is the 95 % interval of ``value`` and ``n`` the number of samples.
    ``place`` is the LPS point in mm, in the fixed image, to which the number belongs.
    ``criterion`` is the text of the limit, empty when the profile has none. ``doubtful``: measured
    on too small a part to be better than for review.
    """

    key: str
    region: str
    value: float | None
    before: float | None = None
    interval: tuple[float, float] | None = None
    n: int | None = None
    place: tuple[float, float, float] | None = None
    note: str = ""
    criterion: str = ""
    verdict: Verdict = Verdict.INFORMATION
    doubtful: bool = False

    @property
    def title(self) -> str:
        """What to call it in a table."""
        return self._kind.title

    @property
    def unit(self) -> str:
        """mm, %, mm³, or nothing."""
        return self._kind.unit

    @property
    def group(self) -> str:
        """Its table: landmarks, structures, regularity, consistency or intensity."""
        return self._kind.group

    @property
    def text(self) -> str:
        """The value as it is shown, with its unit; "not measured" without one."""
        return self._kind.show(self.value)

    @property
    def _kind(self) -> Kind:
        return KINDS[self.key]

    def to_dict(self) -> dict:
        """Plain values for JSON, with title, unit, group and text for programs that show them."""
        data = asdict(self)
        data["verdict"] = self.verdict.value
        shown = {name: getattr(self, name) for name in ("title", "unit", "group", "text")}
        return {**data, **shown}

    @classmethod
    def from_dict(cls, data: dict) -> Measure:
        """The inverse of :meth:`to_dict`."""
        own = {name: data.get(name) for name in cls.__dataclass_fields__}
        for name in ("interval", "place"):
            own[name] = None if own[name] is None else tuple(own[name])
        own["verdict"], own["doubtful"] = Verdict(own["verdict"]), bool(own["doubtful"])
        return cls(**own)


@dataclass(frozen=True)
class Spot:
    """A place to look at: ``place`` in LPS mm in the fixed image, and why."""

    name: str
    place: tuple[float, float, float]
    why: str

    @classmethod
    def from_dict(cls, data: dict) -> Spot:
        """From the plain values of :func:`dataclasses.asdict`."""
        return cls(data["name"], tuple(data["place"]), data["why"])


@dataclass(frozen=True)
class Assessment:
    """All measures of one transform, graded by one profile.

    ``spots`` are the worst places, worst first; ``notes`` what a reader must know about how it was
    measured; ``provenance`` versions, hashes and geometry, without names. ``folds`` are the largest
    folded clusters, the largest first (not all, when there are many).
    """

    measures: tuple[Measure, ...]
    profile: Profile
    spots: tuple[Spot, ...] = ()
    notes: tuple[str, ...] = ()
    provenance: dict = field(default_factory=dict)
    folds: tuple[Spot, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The worst of the graded measures; "not verified" when nothing was graded."""
        graded = [m.verdict for m in self.graded()]
        return max(graded, key=lambda v: v.severity, default=Verdict.NOT_VERIFIED)

    def graded(self) -> list[Measure]:
        """The measures that the profile grades, unmeasured ones among them."""
        return [m for m in self.measures if m.verdict is not Verdict.INFORMATION]

    def headline(self) -> list[tuple[Measure, int]]:
        """Graded measures, the worst first; of each kind of measure of structures only the worst,
        with the number of those that it stands for (1 for the others)."""
        found: dict[tuple[str, str], tuple[Measure, int]] = {}
        for measure in sorted(self.graded(), key=_rank, reverse=True):
            key = measure.key, "" if measure.group == "structures" else measure.region
            worst, count = found.get(key, (measure, 0))
            found[key] = worst, count + 1
        return list(found.values())

    def counts(self) -> dict[str, int]:
        """How many graded measures have each verdict."""
        graded = [m.verdict for m in self.graded()]
        return {v.value: graded.count(v) for v in reversed(_SEVERITY[1:])}

    def find(self, key: str, region: str | None = None) -> Measure | None:
        """The measure of a kind (and region), or None."""
        found = (m for m in self.measures if m.key == key and region in (None, m.region))
        return next(found, None)

    def structures(self) -> list[str]:
        """Names of the structures, in the order of their labels."""
        found = dict.fromkeys(m.region for m in self.measures if m.group == "structures")
        found.pop(NO_STRUCTURE, None)
        return list(found)

    def of_structure(self, name: str) -> list[Measure]:
        """All measures of one structure."""
        return [m for m in self.measures if m.group == "structures" and m.region == name]

    def ranked_structures(self) -> list[str]:
        """Names of the structures, the worst verdict first; among equals the one whose surfaces are
        farthest apart, then the one with the least overlap."""
        names = self.structures()
        return sorted(names, key=lambda name: _badness(self.of_structure(name)), reverse=True)

    @property
    def worst_structure(self) -> str | None:
        """The first of :meth:`ranked_structures`; None without structures."""
        return next(iter(self.ranked_structures()), None)

    def structure_verdict(self, name: str) -> Verdict:
        """The worst verdict of one structure; "information" when the profile grades none of it."""
        verdicts = (m.verdict for m in self.of_structure(name))
        return max(verdicts, key=lambda v: v.severity, default=Verdict.INFORMATION)

    def to_dict(self) -> dict:
        """Plain values for ``assessment.json``."""
        worst = self.worst_structure
        return {
            "schema": SCHEMA,
            "verdict": self.verdict.value,
            "counts": self.counts(),
            "worst_structure": worst,
            "worst_structure_verdict": worst and self.structure_verdict(worst).value,
            "profile": self.profile.to_dict(),
            "measures": [m.to_dict() for m in self.measures],
            "spots": [asdict(spot) for spot in self.spots],
            "folds": [asdict(spot) for spot in self.folds],
            "notes": list(self.notes),
            "provenance": self.provenance,
        }

    @classmethod
    def from_dict(cls, data: dict) -> Assessment:
        """The inverse of :meth:`to_dict`: for programs that show an ``assessment.json``."""
        return cls(
            tuple(Measure.from_dict(m) for m in data["measures"]),
            Profile.from_dict(data["profile"]),
            tuple(Spot.from_dict(s) for s in data["spots"]),
            tuple(data["notes"]),
            data["provenance"],
            tuple(Spot.from_dict(s) for s in data.get("folds", ())),
        )

    def with_measures(self, measures: Iterable[Measure]) -> Assessment:
        """The same with other measures."""
        return replace(self, measures=tuple(measures))


def _rank(measure: Measure) -> tuple[int, float]:
    """Verdict, then the value in the direction in which it is bad: larger is worse."""
    sign = -1.0 if KINDS[measure.key].better == "more" else 1.0
    return measure.verdict.severity, sign * (measure.value or 0.0)


def _badness(measures: list[Measure]) -> tuple[int, float, float]:
    """Verdict, mean distance, and minus Dice of one structure: larger is worse."""
    values = {m.key: m.value for m in measures}
    severity = max((m.verdict.severity for m in measures), default=0)
    dice, distance = values.get("dice"), values.get("mean_distance")
    return severity, distance or 0.0, -1.0 if dice is None else -dice
