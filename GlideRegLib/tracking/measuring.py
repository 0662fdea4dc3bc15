"""Measurements of tracked nodules: which voxels are the nodule on each side, and what changed.

Only native images are measured: the field absorbs growth, so a warped nodule says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..geometry import Grid
from ..volume import Volume
from .nodules import Nodule
from .records import Method, TrackRow

if TYPE_CHECKING:
    from .measures import Measurement

#: A voxel belongs to a mask of other voxels when the mask holds this share of its middle. Linear
#: between voxels, and a little under one half: rounding must not open holes.
_HALF = 0.5 - 1e-4
_OTHER_VOXELS = "The mask lies on other voxels; it was resampled onto those of the image."
_NO_VOXEL = "The mask lies on other voxels, and no voxel of the image lies in it."


@dataclass(frozen=True)
class MeasureSettings:
    """``segment``: nodules that were marked as points are segmented on the native image, up to
    ``maximum_diameter_mm``. ``days`` between the acquisitions (None: unknown).
    ``reference_thresholds`` adds the flags of :mod:`.growth`."""

    segment: bool = False
    maximum_diameter_mm: float = 40.0
    days: float | None = None
    reference_thresholds: bool = False

    def check(self) -> None:
        """Raises :class:`InputError` when a value is out of its range."""
        if self.days is not None and not (np.isfinite(self.days) and self.days > 0):
            raise InputError(f"The days between the scans must be positive, not {self.days:g}.")
        if not 3 <= self.maximum_diameter_mm <= 200:
            raise InputError("The largest diameter of a nodule must be 3 to 200 mm.")


@dataclass(frozen=True)
class Measured:
    """A measurement (None: there is none), by which ``method``, a remark when it failed, and the
    voxels that were measured."""

    measurement: Measurement | None = None
    method: Method = ""
    remark: str = ""
    mask: Volume | None = None


def measure_nodule(volume: Volume, nodule: Nodule, settings: MeasureSettings) -> Measured:
    """Measures one nodule on its native image (HU).

    What an earlier run measured stands; else its mask is measured as it was marked; without one, or
    with one that no voxel of the image has, it is segmented around its center, if the settings ask
    for it.
    """
    from .measures import lies_on, measure

    mask, remark = nodule.mask, ""
    if mask is not None and not lies_on(volume.grid, mask.grid):
        mask = _resampled(mask, volume.grid)
        remark = _OTHER_VOXELS if mask is not None else _NO_VOXEL
    if nodule.measurement is not None:
        return Measured(nodule.measurement, nodule.method, mask=mask)
    try:
        if mask is not None:
            return Measured(measure(volume, mask), "marked", remark, mask)
        if not settings.segment:
            return Measured(remark=remark)
        from .segment import segment_nodule

        mask = segment_nodule(volume, np.asarray(nodule.center), settings.maximum_diameter_mm)
        remark = f"{remark} It was segmented here." if remark else ""
        return Measured(measure(volume, mask), "segmented", remark, mask)
    except InputError as error:
        return Measured(remark=f"{remark} {error}".strip())


def _resampled(mask: Volume, grid: Grid) -> Volume | None:
    """A mask on the voxels of another grid, cropped, uint8; None when it fills half of none."""
    ends = np.array([[0, 0, 0], np.asarray(mask.grid.size) - 1])
    corners = np.stack(np.meshgrid(*ends.T, indexing="ij"), axis=-1).reshape(-1, 3)
    index = grid.to_index(mask.grid.to_physical(corners))
    low = np.maximum(np.floor(index.min(axis=0)).astype(int) - 1, 0)
    high = np.minimum(np.ceil(index.max(axis=0)).astype(int) + 2, grid.size)
    if (high <= low).any():
        return None
    part = grid.padded(tuple(-low), tuple(high - np.asarray(grid.size)))
    share = Volume(mask.array.astype(np.float32), mask.grid).resampled(part)
    inside = (share.array >= _HALF).astype(np.uint8)
    return Volume(inside, part) if inside.any() else None


def prior_measured(
    row: TrackRow, moving: Volume, nodule: Nodule, settings: MeasureSettings
) -> TrackRow:
    """The row with the measurement of its nodule in the prior (moving) native image (HU)."""
    found = measure_nodule(moving, nodule, settings)
    remarks = [r for r in row.remarks if not r.startswith("Prior: ")]
    remarks += ["Prior: " + found.remark] if found.remark else []
    return replace(
        row,
        moving_measurement=found.measurement,
        moving_method=found.method,
        moving_mask=found.mask,
        remarks=tuple(remarks),
    )


def measured_row(
    row: TrackRow, fixed: Volume, nodule: Nodule | None, settings: MeasureSettings
) -> TrackRow:
    """The row with the measurement in the current (fixed) native image (HU), and its growth where
    the prior is measured too.

    ``nodule`` is the marked one of the fixed image, None where it has none. Also for a row that a
    person corrected: what was measured before is replaced. A nodule that the fixed image was not
    asked about (*predicted*) is segmented at its predicted position, if the local refinement found
    it there. An ambiguous row gets no growth before it is decided.
    """
    from .growth import growth

    there = nodule or _found_in_fixed(row)
    found = Measured() if there is None else measure_nodule(fixed, there, settings)
    earlier, later, change = row.moving_measurement, found.measurement, None
    remarks = [r for r in row.remarks if not r.startswith("Current: ")]
    remarks += ["Current: " + found.remark] if found.remark else []
    if earlier is not None and later is not None:
        if row.state == "ambiguous" and row.decision not in ("confirmed", "corrected"):
            remarks.append("Current: no growth is given before the ambiguous match is decided.")
        else:
            change = growth(earlier, later, settings.days, settings.reference_thresholds)
        if found.method != row.moving_method:
            remarks.append("Current: one side was marked and the other segmented here.")
    return replace(
        row,
        fixed_measurement=later,
        fixed_method=found.method,
        fixed_mask=found.mask,
        growth=change,
        remarks=tuple(remarks),
    )


def _found_in_fixed(row: TrackRow) -> Nodule | None:
    """A nodule that nobody was asked about, where it was predicted and found."""
    if row.state != "predicted" or row.predicted_position is None:
        return None
    found = row.refinement is None or row.refinement.accepted
    return Nodule(row.name, row.predicted_position) if found else None
