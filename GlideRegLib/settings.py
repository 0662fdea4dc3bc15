"""All settings of a registration: one frozen tree, presets, checks with reasons, and JSON."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass, field, replace

from .errors import SettingsError

PRESETS = ("fast", "standard", "fine", "paper")


@dataclass(frozen=True)
class GridSettings:
    """The working grid. Units: mm."""

    spacing_mm: float = 1.5
    margin_mm: float = 10.0

    def problems(self) -> list[str]:
        return _range("spacing_mm", self.spacing_mm, 0.5, 8) + _range(
            "margin_mm", self.margin_mm, 0, 200
        )


@dataclass(frozen=True)
class FeatureSettings:
    """Which features, and how they are made.

    ``use``: "both" (the method), "global" or "local". ``encoder``: a registered name, "auto", or
    "none" (local only); ``weights`` an explicit file for it, ``allow_unverified``
    also when its sha256 is not an official one. ``cell_mm``: size of an encoder
    cell in plane; ``input_side``: side of the encoder's square input in pixels instead (the
    paper: 1024). ``slice_mm``: slices are averaged to at most this thickness before they are
    encoded. ``ct_windows``: HU range of each of the three color channels. MIND ``radius`` and
    ``dilation`` in voxels of the working grid. ``contrast_weight``: weight of the locally
    normalized intensity beside the 12 channels of MIND (0: without), whose deviation below
    ``contrast_floor`` (HU; MR: thousandths of the range) is taken for noise.
    """

    use: str = "both"
    encoder: str = "auto"
    weights: str | None = None
    allow_unverified: bool = False
    cell_mm: float = 6.0
    input_side: int | None = None
    slice_mm: float = 4.0
    ct_windows: tuple[tuple[float, float], ...] = ((-1000.0, 400.0),) * 3
    random_weights: bool = False
    cache: bool = True
    mind_radius: int = 1
    mind_dilation: int = 2
    contrast_weight: float = 1.0
    contrast_floor: float = 40.0

    def problems(self) -> list[str]:
        found = _choice("use", self.use, ("both", "global", "local"))
        found += _range("cell_mm", self.cell_mm, 1, 40)
        found += _range("slice_mm", self.slice_mm, 0.5, 20)
        found += _range("mind_radius", self.mind_radius, 1, 4)
        found += _range("mind_dilation", self.mind_dilation, 1, 6)
        found += _range("contrast_weight", self.contrast_weight, 0, 100)
        found += _range("contrast_floor", self.contrast_floor, 1, 1000)
        if self.input_side is not None:
            found += _range("input_side", self.input_side, 64, 2048)
        if len(self.ct_windows) != 3 or any(low >= high for low, high in self.ct_windows):
            found.append("ct_windows needs three (low, high) ranges in HU with low < high")
        if self.use == "global" and self.encoder == "none":
            found.append("global features need an encoder: choose one, or use local features")
        return found


@dataclass(frozen=True)
class ReductionSettings:
    """From 256 encoder channels to ``channels``.

    ``kind``: "dynamic" (VAE trained together with the field), "static" (VAE trained before) or
    "pca". ``literal`` takes the paper's network (no linear path, random start) and its absolute
    weights ``reconstruction`` and ``divergence``; otherwise the registration's gradient on the
    encoder is scaled to ``balance`` times the reconstruction's.
    """

    kind: str = "dynamic"
    channels: int = 12
    hidden: int = 128
    batch: int = 4096
    learning_rate: float = 1e-3
    warm_up: int = 300
    static_steps: int = 600
    steps_per_update: int = 10
    balance: float = 0.3
    divergence_balanced: float = 1e-3
    literal: bool = False
    reconstruction: float = 7.5e4
    divergence: float = 20.0

    def problems(self) -> list[str]:
        found = _choice("kind", self.kind, ("dynamic", "static", "pca"))
        found += _range("channels", self.channels, 1, 64)
        found += _range("hidden", self.hidden, self.channels, 1024)
        found += _range("batch", self.batch, 64, 1_000_000)
        found += _range("learning_rate", self.learning_rate, 1e-6, 1)
        found += _range("balance", self.balance, 0, 10)
        for name in ("warm_up", "static_steps", "steps_per_update"):
            found += _range(name, getattr(self, name), 0, 100_000)
        for name in ("divergence_balanced", "reconstruction", "divergence"):
            found += _range(name, getattr(self, name), 0, 1e9)
        return found


@dataclass(frozen=True)
class ConvexSettings:
    """Coupled convex discrete stage. A level is (pooling factor, search radius in its voxels)."""

    global_levels: tuple[tuple[int, int], ...] = ((8, 4),)
    local_levels: tuple[tuple[int, int], ...] = ((8, 4), (4, 2))
    coefficients: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
    consistency_steps: int = 15
    literal_composition: bool = False

    def problems(self) -> list[str]:
        found = []
        for factor, radius in (*self.global_levels, *self.local_levels):
            if factor not in (1, 2, 4, 6, 8, 16):
                found.append(f"a convex level pools by 1, 2, 4, 6, 8 or 16, not {factor}")
            found += _range("the search radius of a convex level", radius, 1, 8)
        if not self.local_levels or not self.global_levels:
            found.append("the convex stage needs at least one level for each feature set")
        for coefficient in self.coefficients:
            found += _range("a coupling coefficient", coefficient, 0, 1e6)
        found += _range("consistency_steps", self.consistency_steps, 0, 1000)
        return found


@dataclass(frozen=True)
class Level:
    """One level of the Gauss-Newton refinement.

    ``pooling`` of the working grid whose features are compared. The field lives on the same grid,
    but never on a finer one than the working grid pooled by 2. ``alpha`` and ``beta`` weigh the
    global and local SSD (sums over channels); ``bending`` is lambda for displacements in voxels of
    the field's grid. ``cg_iterations``: conjugate-gradient steps of an iteration; each corrects
    on three grids, so a few are enough.
    """

    pooling: int
    iterations: int
    alpha: float
    beta: float
    bending: float
    cg_iterations: int = 6


@dataclass(frozen=True)
class RefineSettings:
    """Continuous refinement: "gauss-newton" (default) or "adam" (the paper's).

    The ``adam_*`` values are the paper's: 800 iterations at learning rate 1 (voxels), half
    resolution, alpha 0.5, beta 3.5, lambda 1.25 (on the mean over voxels and components).
    ``repair_below``: where the determinant falls below this the field is smoothed locally until it
    does not (0 switches it off). ``yields``: whether the regularizer yields to shear, as tissue
    that slides does, from ``shear_limit`` on (voxels from node to node): "auto" (MR only), "always"
    or "never". ``border_stiffness``: what is left of it between the compartments of a sliding mask;
    ``lungs_slide``: lungs that are found in a CT are such a compartment. All four belong to
    Gauss-Newton. ``landmark_sigma_mm``: how well
    landmarks that guide the registration were placed; the smaller, the closer the field passes.
    """

    solver: str = "gauss-newton"
    levels: tuple[Level, ...] = (
        Level(4, 6, 0.15, 1.0, 0.4, 8),
        Level(2, 5, 0.0, 1.0, 0.4, 6),
        Level(1, 3, 0.0, 1.0, 0.4, 4),
    )
    max_step: float = 1.5
    repair_below: float = 0.05
    yields: str = "auto"
    shear_limit: float = 0.4
    border_stiffness: float = 0.05
    lungs_slide: bool = False
    landmark_sigma_mm: float = 2.0
    adam_iterations: int = 800
    adam_learning_rate: float = 1.0
    adam_pooling: int = 2
    adam_alpha: float = 0.5
    adam_beta: float = 3.5
    adam_bending: float = 1.25
    adam_refresh: int = 20

    def problems(self) -> list[str]:
        found = _choice("solver", self.solver, ("gauss-newton", "adam"))
        if not self.levels:
            found.append("the refinement needs at least one level")
        for level in self.levels:
            if level.pooling not in (1, 2, 4, 8):
                found.append(f"a refinement level pools by 1, 2, 4 or 8, not {level.pooling}")
            found += _range("iterations of a level", level.iterations, 0, 1000)
            for name in ("alpha", "beta"):
                found += _range(name, getattr(level, name), 0, 1e3)
            found += _range("bending", level.bending, 1e-4, 1e4)
            found += _range("cg_iterations", level.cg_iterations, 1, 500)
        found += _range("max_step", self.max_step, 0.1, 10)
        found += _range("repair_below", self.repair_below, 0, 0.5)
        found += _choice("yields", self.yields, ("auto", "always", "never"))
        found += _range("shear_limit", self.shear_limit, 0.01, 10)
        found += _range("border_stiffness", self.border_stiffness, 0.01, 1)
        found += _range("landmark_sigma_mm", self.landmark_sigma_mm, 0.1, 50)
        found += _range("adam_iterations", self.adam_iterations, 1, 10000)
        found += _range("adam_learning_rate", self.adam_learning_rate, 1e-4, 10)
        found += _range("adam_refresh", self.adam_refresh, 1, 10000)
        for name in ("adam_alpha", "adam_beta", "adam_bending"):
            found += _range(name, getattr(self, name), 0, 1e6)
        if self.adam_pooling not in (1, 2, 4):
            found.append(f"adam_pooling is 1, 2 or 4, not {self.adam_pooling}")
        return found


@dataclass(frozen=True)
class Settings:
    """Everything that decides the result, beside the inputs.

    ``method``: a name of ``methods.METHODS``; ``method_options``: values for the fields of that
    method's own ``Options``. The parts below are those of "glide"; the other methods take the
    working grid of them, and what their docstrings name. ``initial``: "auto", "none", or the path
    of a transform file (linear, LPS mm, fixed to moving). ``modality``: "auto", "ct" or "mr".
    ``device``: "auto", "cpu" or "cuda". ``threads``: CPU threads, 0 for all cores.
    ``memory_limit_mb``: what a run may take, MiB, 0 for what is free; the plan is stepped down to
    fit. ``confidence``: the error of every voxel is estimated too. Build
    one with :meth:`preset`; :meth:`check` raises :class:`SettingsError` with every reason.
    """

    preset_name: str = "standard"
    method: str = "glide"
    method_options: dict = field(default_factory=dict)
    modality: str = "auto"
    initial: str = "auto"
    device: str = "auto"
    threads: int = 0
    seed: int = 0
    memory_limit_mb: float = 0.0
    confidence: bool = True
    grid: GridSettings = field(default_factory=GridSettings)
    features: FeatureSettings = field(default_factory=FeatureSettings)
    reduction: ReductionSettings = field(default_factory=ReductionSettings)
    convex: ConvexSettings = field(default_factory=ConvexSettings)
    refine: RefineSettings = field(default_factory=RefineSettings)

    @classmethod
    def preset(cls, name: str) -> Settings:
        """The settings of a preset: fast, standard, fine or paper. Raises SettingsError."""
        if name not in PRESETS:
            raise SettingsError(f"There is no preset '{name}'; choose {', '.join(PRESETS)}.")
        if name == "fast":
            return cls(
                preset_name=name,
                grid=GridSettings(spacing_mm=2.0),
                features=FeatureSettings(cell_mm=8.0),
            )
        if name == "fine":
            return cls(preset_name=name, grid=GridSettings(spacing_mm=1.0))
        if name == "paper":
            return cls(
                preset_name=name,
                grid=GridSettings(spacing_mm=1.0),
                features=FeatureSettings(input_side=1024, slice_mm=1.0, contrast_weight=0.0),
                reduction=ReductionSettings(literal=True, steps_per_update=1, warm_up=0),
                convex=ConvexSettings(global_levels=((6, 4),), local_levels=((6, 4),)),
                refine=RefineSettings(solver="adam", repair_below=0.0),
            )
        return cls()

    @property
    def uses_global(self) -> bool:
        """Whether an encoder takes part."""
        return self.features.use != "local" and self.features.encoder != "none"

    @property
    def uses_local(self) -> bool:
        return self.features.use != "global"

    def check(self) -> None:
        """Raises :class:`SettingsError` that names every setting out of range, with its range."""
        found = _choice("modality", self.modality, ("auto", "ct", "mr"))
        found += _choice("device", self.device, ("auto", "cpu", "cuda"))
        found += _range("threads", self.threads, 0, 1024)
        found += _range("seed", self.seed, 0, 2**31 - 1)
        found += _range("memory_limit_mb", self.memory_limit_mb, 0, 10_000_000)
        for part in (self.grid, self.features, self.reduction, self.convex, self.refine):
            found += part.problems()
        found += self._weightless_levels() + self._method_problems()
        if found:
            raise SettingsError("These settings cannot be used: " + "; ".join(found) + ".")

    def _method_problems(self) -> list[str]:
        """What the method of another name says of its options."""
        if self.method == "glide":
            return ["the method glide has no method_options"] if self.method_options else []
        from .methods import find

        return find(self.method).problems(self.method_options)

    def _weightless_levels(self) -> list[str]:
        """Levels at which no feature set in use has a weight."""
        if not self.uses_local:
            return []  # the global features then carry every level
        if self.refine.solver == "adam":
            alpha, beta = self.refine.adam_alpha, self.refine.adam_beta
            weights = {"adam": (alpha, beta)}
        else:
            weights = {f"level {v.pooling}": (v.alpha, v.beta) for v in self.refine.levels}
        return [
            f"{name} of the refinement weighs no feature that is in use"
            for name, (alpha, beta) in weights.items()
            if beta == 0 and (alpha == 0 or not self.uses_global)
        ]

    def to_dict(self) -> dict:
        """Plain values for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict) -> Settings:
        """Settings from JSON: what is not named keeps the preset's value.

        Raises :class:`SettingsError` for unknown names and wrong types.
        """
        if not isinstance(data, dict):
            raise SettingsError(f"The settings must be an object with names, not {data!r}.")
        base = cls.preset(data.get("preset_name", "standard"))
        return merged(base, data, "settings")


def with_changes(settings: Settings, **changes: dict | object) -> Settings:
    """A copy with some values changed: ``with_changes(s, seed=3, grid={"spacing_mm": 2.0})``."""
    return merged(settings, changes, "settings")


def merged(base: typing.Any, data: object, where: str) -> typing.Any:
    """A copy of any settings dataclass with the values that ``data`` names; ``where`` names it in
    messages. Raises :class:`SettingsError` for unknown names and wrong types."""
    if not isinstance(data, dict):
        raise SettingsError(f"The {where} must be an object with names, not {data!r}.")
    kinds = _kinds(type(base), data, where)
    values = {}
    for name, value in data.items():
        old = getattr(base, name)
        if dataclasses.is_dataclass(old):
            values[name] = merged(old, value, name)
        else:
            values[name] = _typed(kinds[name], value, f"'{name}' of the {where}")
    return replace(base, **values)


def _kinds(cls: type, data: dict, where: str) -> dict[str, typing.Any]:
    """The types of a dataclass's fields. Raises SettingsError when ``data`` names another one."""
    kinds = typing.get_type_hints(cls)
    for name in data:
        if name not in kinds:
            raise SettingsError(
                f"'{name}' is not one of the {where}; known are {', '.join(sorted(kinds))}."
            )
    return kinds


def _typed(kind: typing.Any, value: object, where: str) -> object:
    """A value from JSON as the type that a field is declared with. Raises SettingsError."""
    arguments = typing.get_args(kind)
    if type(None) in arguments:
        if value is None:
            return None
        kind = next(a for a in arguments if a is not type(None))
    elif typing.get_origin(kind) is tuple and isinstance(value, list | tuple):
        each = (arguments[0],) * len(value) if arguments[-1] is ... else arguments
        if len(each) != len(value):
            raise SettingsError(f"{where} needs {len(each)} values each, not {value!r}.")
        return tuple(_typed(k, v, where) for k, v in zip(each, value, strict=True))
    if kind is Level and isinstance(value, dict):
        kinds = _kinds(Level, value, where)
        required = [f.name for f in dataclasses.fields(Level) if f.default is dataclasses.MISSING]
        missing = [name for name in required if name not in value]
        if missing:
            raise SettingsError(f"{where} lacks {', '.join(missing)} in {value!r}.")
        return Level(**{n: _typed(kinds[n], v, f"'{n}' of {where}") for n, v in value.items()})
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    fits = typing.get_origin(kind) is None and isinstance(value, kind)
    if not fits or (isinstance(value, bool) and kind is not bool):
        raise SettingsError(f"{where} must be of type {_name_of(kind)}, not {value!r}.")
    return value


def _name_of(kind: typing.Any) -> str:
    if typing.get_origin(kind) is tuple:
        return f"list of {_name_of(typing.get_args(kind)[0])}"
    names = {str: "text", bool: "true or false", Level: "level", dict: "object with names"}
    return names.get(kind, kind.__name__)


def out_of_range(part: object, limits: dict[str, tuple[float, float]]) -> list[str]:
    """Half a sentence for each attribute of ``part`` that lies outside its (low, high)."""
    return [
        text for name, (a, b) in limits.items() for text in _range(name, getattr(part, name), a, b)
    ]


def _range(name: str, value: float, low: float, high: float) -> list[str]:
    return [] if low <= value <= high else [f"{name} must be {low:g} to {high:g}, not {value:g}"]


def _choice(name: str, value: str, choices: tuple[str, ...]) -> list[str]:
    return [] if value in choices else [f"{name} must be {', '.join(choices)}, not '{value}'"]
