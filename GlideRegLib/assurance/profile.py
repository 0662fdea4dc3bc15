"""Profiles: named sets of criteria, as small JSON files that a department can write itself."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import SettingsError
from .catalog import KINDS

SCHEMA = "glidereg-profile-1"
FOLDER = Path(__file__).parent / "profiles"
#: Voxel sides in mm over which limits in voxels and in mm must go together.
_VOXELS_MM = (0.05, 20.0)


@dataclass(frozen=True)
class Limit:
    """A limit, fixed or relative to the images.

    ``value`` in the unit of the measure; or ``voxels``, so many times the largest voxel side of
    both images in mm, kept between ``at_least`` and ``at_most`` (mm).
    """

    value: float | None = None
    voxels: float | None = None
    at_least: float | None = None
    at_most: float | None = None

    def of(self, voxel_mm: float) -> float:
        """The number, for images whose largest voxel side is ``voxel_mm``."""
        if self.value is not None:
            return self.value
        found = self.voxels * voxel_mm
        if self.at_least is not None:
            found = max(found, self.at_least)
        return found if self.at_most is None else min(found, self.at_most)

    def to_json(self) -> float | dict:
        """As in a profile's file: a number, or an object."""
        if self.value is not None:
            return self.value
        return {k: v for k, v in vars(self).items() if v is not None}

    @classmethod
    def from_json(cls, data: object, where: str) -> Limit:
        """From a number or an object. Raises :class:`SettingsError` with one sentence."""
        if _is_number(data):
            return cls(value=float(data))
        known = {"voxels", "at_least", "at_most"}
        if (
            not isinstance(data, dict)
            or "voxels" not in data
            or not set(data) <= known
            or not all(_is_number(v) for v in data.values())
        ):
            raise SettingsError(
                f"{where} must be a number that is finite, or an object with 'voxels' and, if "
                "wanted, 'at_least' and 'at_most' in mm."
            )
        found = cls(**{k: float(v) for k, v in data.items()})
        if found.voxels <= 0 or not _in_order(found.at_least, found.at_most):
            raise SettingsError(
                f"{where} needs 'voxels' above 0, and an 'at_least' that is not above 'at_most'."
            )
        return found


@dataclass(frozen=True)
class Criterion:
    """The limits of one kind of measure.

    Up to ``compliant`` (from it on, where more is better) it is compliant; beyond that and up to
    ``review`` it is for review; beyond that it is not compliant. Without ``review`` there is no
    such band; with ``only_review`` nothing beyond ``compliant`` is worse than review. ``regions``
    names what it applies to ("body", "grid", structures); empty: everything but the grid. With
    fewer than ``minimum_n`` samples (landmarks) nothing is better than review.
    """

    measure: str
    compliant: Limit
    review: Limit | None = None
    only_review: bool = False
    regions: tuple[str, ...] = ()
    minimum_n: int | None = None

    def applies_to(self, region: str) -> bool:
        """Whether it grades measures on this region."""
        return region in self.regions if self.regions else region != "grid"

    def to_dict(self) -> dict:
        """As in a profile's file."""
        data: dict = {"measure": self.measure, "compliant": self.compliant.to_json()}
        if self.review is not None:
            data["review"] = self.review.to_json()
        if self.only_review:
            data["only_review"] = True
        if self.regions:
            data["regions"] = list(self.regions)
        if self.minimum_n is not None:
            data["minimum_n"] = self.minimum_n
        return data

    @classmethod
    def from_dict(cls, data: object) -> Criterion:
        """From a profile's file. Raises :class:`SettingsError` with one sentence."""
        if not isinstance(data, dict):
            raise SettingsError("Each criterion of a profile must be a JSON object.")
        name = data.get("measure")
        unknown = sorted(set(data) - set(cls.__dataclass_fields__))
        gradable = sorted(k for k, kind in KINDS.items() if kind.better)
        if name not in gradable:
            raise SettingsError(
                f"The profile grades '{name}', which is unknown; known are {', '.join(gradable)}."
            )
        if unknown or "compliant" not in data:
            raise SettingsError(
                f"The criterion for '{name}' needs 'compliant' and knows 'review', 'only_review', "
                f"'regions' and 'minimum_n'" + (f", not {', '.join(unknown)}." if unknown else ".")
            )
        regions = data.get("regions", [])
        if not isinstance(regions, list) or not all(isinstance(r, str) for r in regions):
            raise SettingsError(f"The 'regions' of the criterion for '{name}' must be a list.")
        only_review = data.get("only_review", False)
        if not isinstance(only_review, bool) or (only_review and "review" in data):
            raise SettingsError(
                f"The criterion for '{name}' takes either a limit 'review' or 'only_review': true."
            )
        minimum = data.get("minimum_n")
        if minimum is not None and (type(minimum) is not int or minimum < 1):
            raise SettingsError(f"The 'minimum_n' of '{name}' must be a whole number above 0.")
        limits = {
            key: Limit.from_json(data[key], f"The limit '{key}' of '{name}'")
            for key in ("compliant", "review")
            if key in data
        }
        _check_limits(name, **limits)
        return cls(
            name, **limits, only_review=only_review, regions=tuple(regions), minimum_n=minimum
        )


@dataclass(frozen=True)
class Profile:
    """A named set of criteria. ``source`` says where the numbers come from."""

    name: str
    description: str
    source: str
    criteria: tuple[Criterion, ...]

    def to_dict(self) -> dict:
        """As in its file."""
        return {
            "schema": SCHEMA,
            "name": self.name,
            "description": self.description,
            "source": self.source,
            "criteria": [criterion.to_dict() for criterion in self.criteria],
        }

    @classmethod
    def from_dict(cls, data: object) -> Profile:
        """From a file's content. Raises :class:`SettingsError` with one sentence."""
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            raise SettingsError(f'A profile must be a JSON object with "schema": "{SCHEMA}".')
        texts = [data.get(key) for key in ("name", "description", "source")]
        criteria = data.get("criteria")
        if not all(isinstance(t, str) and t for t in texts) or not isinstance(criteria, list):
            raise SettingsError(
                "A profile needs the texts 'name', 'description' and 'source', and a list "
                "'criteria'."
            )
        found = tuple(Criterion.from_dict(entry) for entry in criteria)
        pairs = [(c.measure, r) for c in found for r in (c.regions or ("",))]
        if not found or len(pairs) != len(set(pairs)):
            raise SettingsError("A profile needs criteria, and only one for the same measure.")
        return cls(*texts, found)

    @classmethod
    def named(cls, name: str | Path) -> Profile:
        """A profile that :func:`available_profiles` knows ("tg132", ...), or one from a JSON file.

        Raises :class:`SettingsError` with one sentence.
        """
        known = available_profiles()
        path = known.get(str(name), Path(name))
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise SettingsError(
                f"The profile '{name}' is neither one of {', '.join(known)} nor a file that can be "
                "read."
            ) from error
        except ValueError as error:
            raise SettingsError(f"The profile '{name}' is not valid JSON ({error}).") from error
        return cls.from_dict(data)


def available_profiles(*folders: Path) -> dict[str, Path]:
    """Every profile that can be chosen, as name and file: the built-in ones first, then the user's.

    The user's are the ``.json`` files in ``folders``, in those of ``$GLIDEREG_PROFILES`` (several,
    parted as in PATH) and in :func:`user_folder`; the first with a name counts. A built-in name
    always means the built-in profile: no verdict "TG-132" with limits of somebody else. Files are
    listed, not read: what is wrong with one is said by :meth:`Profile.named`.
    """
    named = os.environ.get("GLIDEREG_PROFILES", "").split(os.pathsep)
    searched = [*folders, *(Path(f).expanduser() for f in named if f), user_folder()]
    found = {name: FOLDER / f"{name}.json" for name in built_in_profiles()}
    for folder in searched:
        for path in sorted(Path(folder).glob("*.json")):
            found.setdefault(path.stem, path)
    return found


def user_folder() -> Path:
    """Where a user keeps profiles of his or her own on this system. It may not exist yet."""
    import platformdirs

    return Path(platformdirs.user_config_dir("GlideReg", appauthor=False)) / "profiles"


def built_in_profiles() -> list[str]:
    """Names of the profiles that come along."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def _in_order(low: float | None, high: float | None) -> bool:
    return low is None or high is None or low <= high


def _check_limits(name: str, compliant: Limit, review: Limit | None = None) -> None:
    """Raises :class:`SettingsError` for limits that would let through what they seem to forbid."""
    kind = KINDS[name]
    if kind.unit != "mm" and any(x is not None and x.voxels for x in (compliant, review)):
        raise SettingsError(
            f"The criterion for '{name}' cannot be a number of voxels: it is not measured in mm."
        )
    if review is None:
        return
    sign = -1 if kind.better == "more" else 1
    for voxel_mm in _corners(compliant) | _corners(review):
        first, second = compliant.of(voxel_mm), review.of(voxel_mm)
        if sign * second < sign * first - 1e-9:
            voxels = compliant.voxels or review.voxels
            where = f" for voxels of {voxel_mm:g} mm" if voxels else ""
            raise SettingsError(
                f"The limit 'review' of '{name}' ({second:g}) is stricter than 'compliant' "
                f"({first:g}){where}; it must be the looser one."
            )


def _corners(limit: Limit) -> set[float]:
    """Voxel sides in mm between which a limit grows evenly, and the ends of what is sensible: what
    holds at those of two limits holds between them, too."""
    bends = {x / limit.voxels for x in (limit.at_least, limit.at_most) if x and limit.voxels}
    return {*_VOXELS_MM, *(b for b in bends if _VOXELS_MM[0] < b < _VOXELS_MM[1])}


def _is_number(value: object) -> bool:
    """Whether a value of a file is a finite number: JSON lets NaN and huge integers pass."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return -1e300 < value < 1e300
