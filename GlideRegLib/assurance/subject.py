"""What is assessed: two volumes, a transform between them, and what there is to measure it with."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..redaction import without_persons
from ..volume import Volume
from .records import OTHER_REGIONS

if TYPE_CHECKING:
    import SimpleITK


@dataclass(frozen=True)
class Subject:
    """A registration by whomever.

    ``transform`` is any ITK transform, fixed to moving, LPS mm. ``landmarks`` are corresponding
    points, fixed and moving (N, 3), LPS mm; ``labels`` label maps of the fixed and the moving
    image, each on any grid in its image's frame; ``names`` gives structures their names by label.
    ``more_labels`` are further pairs of maps, for structures that overlap those of the first (a
    tumor in a lung); no label is used in two pairs.
    ``backward`` maps moving to fixed. ``onward`` maps moving points into a third image and
    ``direct`` fixed points into the same one: together they close a triangle.
    """

    fixed: Volume
    moving: Volume
    transform: SimpleITK.Transform
    landmarks: tuple[np.ndarray, np.ndarray] | None = None
    labels: tuple[Volume, Volume] | None = None
    names: dict[int, str] = field(default_factory=dict)
    backward: SimpleITK.Transform | None = None
    onward: SimpleITK.Transform | None = None
    direct: SimpleITK.Transform | None = None
    more_labels: tuple[tuple[Volume, Volume], ...] = ()

    def check(self) -> None:
        """Raises :class:`InputError` for what cannot be measured."""
        if (self.onward is None) != (self.direct is None):
            raise InputError(
                "Transitivity needs two more transforms: from the moving to a third image, and "
                "from the fixed to that one."
            )
        moved = np.asarray(self.transform.TransformPoint(self.fixed.grid.center.tolist()))
        if not np.isfinite(moved).all():
            raise InputError("The transform sends the middle of the fixed image to infinity.")
        found: set[int] = set()
        for layer in self.layers if self.more_labels else ():
            labels = set(layer.structure_names())
            if found & labels:
                raise InputError("Two pairs of label maps use the same label; each needs its own.")
            found |= labels

    @cached_property
    def layers(self) -> list[Subject]:
        """This subject once for each pair of label maps; at least once. What was computed for it
        and does not depend on labels is shared."""
        others = [replace(self, labels=pair, more_labels=()) for pair in self.more_labels]
        for other in others:
            for name in ("modality", "background", "body"):
                other.__dict__[name] = getattr(self, name)
        return [self, *others]

    @cached_property
    def modality(self) -> str:
        """ "ct" or "mr", from the fixed image."""
        from ..prepare import detect_modality

        return detect_modality(self.fixed)

    @cached_property
    def background(self) -> float:
        """The value of the moving image outside itself."""
        from ..prepare import background_value

        return background_value(self.moving, self.modality)

    @cached_property
    def body(self) -> np.ndarray:
        """The fixed patient, bool (Z, Y, X); everything when nothing sensible is found."""
        from ..prepare import body_mask, normalize_intensity

        mask = body_mask(normalize_intensity(self.fixed, self.modality), self.modality)
        return mask if mask.any() else np.ones_like(mask)

    @cached_property
    def fixed_labels(self) -> np.ndarray | None:
        """The fixed label map on the fixed grid (Z, Y, X), or None."""
        if self.labels is None:
            return None
        grid = self.fixed.grid
        own = self.labels[0]
        return (own if own.grid.is_close(grid, 1e-2) else own.resampled(grid, labels=True)).array

    def structure_names(self) -> dict[int, str]:
        """Label -> name for every label of the first pair of maps; without a name "label 7".

        Unique over all pairs, and none of the words that stand for other regions: criteria would
        take the structure for that region. A name that is taken gets its label behind it.
        """
        if self.labels is None:
            return {}
        found = set().union(*(np.unique(volume.array).tolist() for volume in self.labels)) - {0}
        names: dict[int, str] = {}
        for label in sorted(int(v) for v in found):
            name = without_persons(self.names.get(label, f"label {label}"))
            others = (other for k, other in self.names.items() if k < label)
            taken = name in (*others, *names.values(), *OTHER_REGIONS)
            names[label] = f"{name} ({label})" if taken else name
        return names

    @property
    def voxel_mm(self) -> float:
        """The largest voxel side of both images, mm."""
        return float(max(*self.fixed.grid.spacing, *self.moving.grid.spacing))

    def body_points(self, count: int) -> np.ndarray:
        """About ``count`` points spread evenly over the body whose partners lie in the moving
        image, LPS mm (N, 3)."""
        points = self._spread(count)
        return points[self._has_partner(points)]

    def _spread(self, count: int) -> np.ndarray:
        flat = np.flatnonzero(self.body)
        # An odd step that shares no factor with the rows keeps the points off common planes.
        step = max(1, flat.size // count) | 1
        index = np.stack(np.unravel_index(flat[::step], self.body.shape), axis=1)[:, ::-1]
        return self.fixed.grid.to_physical(index)

    def _has_partner(self, points: np.ndarray) -> np.ndarray:
        from ..field import transform_points

        return self.moving.grid.contains(transform_points(self.transform, points))

    @cached_property
    def partner_share(self) -> float:
        """The share of the fixed body whose partners lie in the moving image, 0 to 1."""
        return float(self._has_partner(self._spread(2000)).mean())

    def in_body(self, points: np.ndarray) -> np.ndarray:
        """Which LPS points (N, 3) lie in the fixed body: bool (N,)."""
        grid = self.fixed.grid
        inside = grid.contains(points)
        last = np.asarray(grid.size) - 1
        x, y, z = np.clip(np.rint(grid.to_index(points[inside])), 0, last).astype(int).T
        inside[inside] = self.body[z, y, x]
        return inside

    @cached_property
    def backward_is_inverse(self) -> bool:
        """Whether the backward transform is the forward one inverted, see :mod:`.inverse`."""
        from .inverse import is_numerical_inverse

        return self.backward is not None and is_numerical_inverse(self)


def as_place(point: np.ndarray) -> tuple[float, float, float]:
    """An LPS point (3,) in mm as plain values, to a hundredth of a millimeter."""
    x, y, z = (round(float(v), 2) for v in point)
    return x, y, z
