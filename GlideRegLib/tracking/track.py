"""``track``: every nodule of the prior (moving) image, found again in the current (fixed) one.

Prediction by the transform, local refinement, matching, measurements: each step in its own file,
put together here. Registration proposes, a clinician confirms. Research use only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace

import numpy as np

from ..errors import InputError, SettingsError
from ..geometry import Grid
from ..volume import Volume
from .mapping import Mapping, Uncertainty, uncertainty_of
from .matching import Gates, Matching, lone_state, match, pair_state
from .measuring import MeasureSettings, measured_row, prior_measured
from .nodules import Nodule, as_point, new_identifier, unique_names
from .records import Tracking, TrackRow, plain_values
from .refinement import RefineSettings, refine
from .visibility import unseen

__all__ = [
    "Gates",
    "MeasureSettings",
    "RefineSettings",
    "TrackRow",
    "TrackSettings",
    "Tracking",
    "track",
]


_ERROR_UNKNOWN = "The error of this transform is not known; states do not allow for it."
_NOTHING_MEASURED = (
    "No nodule could be measured; check that the images, and their lists, are not exchanged."
)
#: The largest error that is stated, mm: it says that nothing is known.
_LOST_MM = 1e3


@dataclass(frozen=True)
class TrackSettings:
    """The settings of tracking: see :class:`Gates`, :class:`RefineSettings` and
    :class:`MeasureSettings`."""

    gates: Gates = field(default_factory=Gates)
    refine: RefineSettings = field(default_factory=RefineSettings)
    measure: MeasureSettings = field(default_factory=MeasureSettings)

    @classmethod
    def from_dict(cls, data: dict) -> TrackSettings:
        """From plain values, as ``dataclasses.asdict`` gives them; what is left out keeps its
        default. Raises :class:`SettingsError` for unknown names."""
        kinds = {"gates": Gates, "refine": RefineSettings, "measure": MeasureSettings}
        parts = {}
        for name, values in data.items():
            kind = kinds.get(name)
            known = set() if kind is None else {f.name for f in fields(kind)}
            unknown = sorted(set(values) - known) if isinstance(values, dict) and kind else [name]
            if unknown:
                raise SettingsError(
                    f"The settings of tracking have unknown names: {', '.join(unknown)}."
                )
            parts[name] = kind(
                **{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
            )
        return cls(**parts)

    def check(self) -> None:
        """Raises a :class:`GlideRegError` with one sentence when a value is out of its range."""
        self.gates.check()
        self.refine.check()
        self.measure.check()


def track(
    mapping: Mapping,
    fixed: Volume,
    moving: Volume,
    moving_nodules: Sequence[Nodule],
    fixed_nodules: Sequence[Nodule] | None = None,
    settings: TrackSettings | None = None,
    uncertainty: Uncertainty | None = None,
    check: Callable[[], None] = lambda: None,
) -> Tracking:
    """Follows the nodules of the prior (moving) into the current (fixed) image.

    ``mapping``: a :class:`~GlideRegLib.result.Result`, a :class:`~.mapping.FileMapping`, or a
    :class:`~.mapping.SwappedMapping` when the prior was the fixed image of the registration. Both
    volumes are native images (HU), nodules in their own image's LPS mm. With ``fixed_nodules``
    None nothing is matched and the rows are *predicted*. ``uncertainty`` is taken from the result
    if it has one. ``check`` is called between nodules and may raise to cancel.

    Returns one row per nodule: those of the prior in their order, then new ones. Raises
    :class:`InputError` when all nodules lie outside of their image, or two have one identity.
    """
    settings = settings or TrackSettings()
    settings.check()
    priors = unique_names(moving_nodules)
    _check_identities("prior", priors)
    # Who was only carried into the current image is no mark in it.
    currents = None if fixed_nodules is None else [n for n in fixed_nodules if n.located]
    _check_identities("current", currents or [])
    notes = [*_check_inside("prior", priors, moving.grid)]
    notes += _check_inside("current", currents or [], fixed.grid)
    run = _Run(mapping, fixed, moving, settings, uncertainty or uncertainty_of(mapping))
    notes += [] if run.uncertainty is not None else [_ERROR_UNKNOWN]
    rows = run.predict(priors, check)
    used: dict[str, Nodule] = {}
    if currents is not None:
        rows, used = run.pair(rows, currents)
    measured = []
    for row in rows:
        check()
        current = used.get(row.fixed_identifier or "")
        measured.append(measured_row(row, fixed, current, settings.measure))
    notes += _nothing_measured(measured, [*priors, *(currents or [])], settings.measure)
    used_settings = plain_values(asdict(settings))
    return Tracking(tuple(measured), settings.measure.days, used_settings, tuple(notes))


class _Run:
    """One call of :func:`track`: what all nodules share."""

    def __init__(
        self,
        mapping: Mapping,
        fixed: Volume,
        moving: Volume,
        settings: TrackSettings,
        uncertainty: Uncertainty | None,
    ) -> None:
        self.mapping, self.fixed, self.moving = mapping, fixed, moving
        self.settings, self.uncertainty = settings, uncertainty
        #: Identifiers of nodules whose own image does not show their place.
        self.strange: set[str] = set()

    def predict(self, priors: Sequence[Nodule], check: Callable[[], None]) -> list[TrackRow]:
        """A row for each prior nodule with its place in the fixed image, nothing matched yet."""
        centers = np.array([nodule.center for nodule in priors]).reshape(-1, 3)
        places = self.mapping.inverse_points(centers)
        outside = unseen(self.fixed, places, self.settings.gates.border_mm)
        strange = unseen(self.moving, centers, 0.0)
        self.strange = {n.identifier for n, out in zip(priors, strange, strict=True) if out}
        errors = self._uncertainties(places, [nodule.uncertainty_mm for nodule in priors])
        rows = []
        for nodule, place, out, error in zip(priors, places, outside, errors, strict=True):
            check()
            row = TrackRow(
                nodule.identifier,
                nodule.name,
                "outside field of view" if out else "predicted",
                moving_center=nodule.center,
                field_position=as_point(place),
                predicted_position=as_point(place),
                uncertainty_mm=error,
                moving_identifier=nodule.identifier,
            )
            if nodule.located:
                row = prior_measured(row, self.moving, nodule, self.settings.measure)
            row = self._with_doubt(self._refined(row, place))
            rows.append(_with_remark(row, nodule.identifier in self.strange, "prior"))
        return rows

    def pair(
        self, rows: list[TrackRow], currents: Sequence[Nodule]
    ) -> tuple[list[TrackRow], dict[str, Nodule]]:
        """The rows with partners and states, then the new ones; and the current nodules used."""
        predicted = np.array([row.predicted_position for row in rows]).reshape(-1, 3)
        marked = np.array([nodule.center for nodule in currents]).reshape(-1, 3)
        matching = match(predicted, marked, self.settings.gates)
        strange = unseen(self.fixed, marked, 0.0)
        self.strange |= {n.identifier for n, out in zip(currents, strange, strict=True) if out}
        done = [self._paired(k, row, matching, currents) for k, row in enumerate(rows)]
        taken = set(matching.pairs[:, 1].tolist())
        alone = [k for k in range(len(currents)) if k not in taken]
        done += self._new_rows([currents[k] for k in alone], matching.rivals[alone], rows)
        return done, {nodule.identifier: nodule for nodule in currents}

    def _paired(
        self, k: int, row: TrackRow, matching: Matching, currents: Sequence[Nodule]
    ) -> TrackRow:
        candidates, partner = int(matching.candidates[k]), matching.partner(k)
        uncertain = self._uncertain(row.uncertainty_mm) or row.identifier in self.strange
        if partner is None:
            outside = row.state == "outside field of view"
            state = lone_state(candidates, outside, uncertain, "resolved")
            return replace(row, state=state, candidates=candidates)
        nodule = currents[partner]
        strange = nodule.identifier in self.strange
        return replace(
            _with_remark(row, strange, "current"),
            state=pair_state(matching, k, partner, uncertain or strange, self.settings.gates),
            candidates=candidates,
            fixed_center=nodule.center,
            fixed_identifier=nodule.identifier,
            distance_mm=float(matching.distances[k, partner]),
        )

    def _new_rows(
        self, nodules: Sequence[Nodule], rivals: np.ndarray, others: Sequence[TrackRow]
    ) -> list[TrackRow]:
        """Rows of current nodules without a prior; ``others`` are the rows that are there."""
        names, taken = ({getattr(r, key) for r in others} for key in ("name", "identifier"))
        centers = np.array([nodule.center for nodule in nodules]).reshape(-1, 3)
        places = self.mapping.transform_points(centers)
        outside = unseen(self.moving, places, self.settings.gates.border_mm)
        errors = self._uncertainties(centers)
        rows = []
        for k, nodule in enumerate(nodules):
            strange = nodule.identifier in self.strange
            doubt = strange or self._uncertain(errors[k])
            state = lone_state(int(rivals[k]), outside[k] and not strange, doubt, "new")
            name = nodule.name if nodule.name not in names else f"{nodule.name} (current)"
            row = TrackRow(
                new_identifier() if nodule.identifier in taken else nodule.identifier,
                name,
                state,
                fixed_center=nodule.center,
                moving_predicted=as_point(places[k]),
                uncertainty_mm=errors[k],
                fixed_identifier=nodule.identifier,
            )
            rows.append(_with_remark(self._with_doubt(row), strange, "current"))
        return rows

    def _refined(self, row: TrackRow, place: np.ndarray) -> TrackRow:
        """The row with the outcome of the local search around ``place`` (3,), if it is wanted."""
        settings = self.settings.refine
        if not settings.enabled:
            return row
        known = row.moving_measurement
        diameter = None if known is None else known.equivalent_diameter_mm
        found = refine(self.mapping, self.fixed, self.moving, place, settings, diameter)
        there = place + found.shift if found.accepted else place
        return replace(row, refinement=found, predicted_position=as_point(there))

    def _uncertainties(self, points: np.ndarray, known: Sequence[float] = ()) -> list[float | None]:
        """Expected errors at LPS points, with those that the points had before (``known``)."""
        before = np.asarray(known or np.zeros(len(points)), dtype=float)
        if self.uncertainty is None or len(points) == 0:
            return [float(value) if value > 0 else None for value in before]
        return np.minimum(np.hypot(self.uncertainty(points), before), _LOST_MM).tolist()

    def _uncertain(self, error: float | None) -> bool:
        return error is not None and not error <= self.settings.gates.uncertain_mm

    def _with_doubt(self, row: TrackRow) -> TrackRow:
        """The row with a remark where the field is uncertain."""
        if not self._uncertain(row.uncertainty_mm):
            return row
        gate = self.settings.gates.uncertain_mm
        doubt = f"The field is uncertain there ({row.uncertainty_mm:.1f} mm, above {gate:g} mm)."
        return replace(row, remarks=(*row.remarks, doubt))


def _with_remark(row: TrackRow, strange: bool, role: str) -> TrackRow:
    """The row with a remark when the nodule lies where its own image shows nothing."""
    if not strange:
        return row
    text = f"Its place lies outside of the {role} image, or in its padding: check it."
    return replace(row, remarks=(*row.remarks, text))


def _nothing_measured(
    rows: Sequence[TrackRow], nodules: Sequence[Nodule], settings: MeasureSettings
) -> list[str]:
    """A note when nodules were to be measured, and none was."""
    wanted = settings.segment or any(nodule.mask is not None for nodule in nodules)
    found = any(row.moving_measurement or row.fixed_measurement for row in rows)
    return [_NOTHING_MEASURED] if nodules and wanted and not found else []


def _check_identities(role: str, nodules: Sequence[Nodule]) -> None:
    if len({nodule.identifier for nodule in nodules}) < len(nodules):
        raise InputError(f"Two nodules of the {role} image have the same identity; keep one.")


def _check_inside(role: str, nodules: Sequence[Nodule], grid: Grid) -> list[str]:
    """A note when some marked nodules lie outside their image; InputError when all of them do."""
    centers = np.array([nodule.center for nodule in nodules if nodule.located]).reshape(-1, 3)
    outside = int((~grid.contains(centers)).sum())
    if outside and outside == len(centers):
        raise InputError(
            f"All nodules of the {role} image lie outside of it; check their frame (LPS or RAS), "
            "and that both lists are not exchanged."
        )
    return [f"{outside} nodules lie outside the {role} image."] if outside else []
