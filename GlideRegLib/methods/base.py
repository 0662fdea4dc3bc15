"""What a method is to the rest of the library, and what it needs to run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..errors import InputError, SettingsError
from ..features.weights import weights_folder
from ..progress import Progress
from ..settings import Settings, merged

if TYPE_CHECKING:
    import numpy as np

    from ..result import Result
    from ..volume import Volume


@dataclass(frozen=True)
class Need:
    """Something that a method needs beyond this library: ``found`` looks for it (quickly, nothing
    is loaded), ``how`` says in half a sentence how to get it. ``option``: the option of the method
    that can name it instead. ``identity`` changes when it is exchanged for another version."""

    what: str
    how: str
    found: Callable[[], bool]
    option: str = ""
    identity: Callable[[], str] = str
    is_program: bool = False

    @classmethod
    def package(cls, module: str, how: str) -> Need:
        """A Python package that can be imported as ``module``."""
        what = f"the Python package '{module}'"
        versions = partial(_versions_of_module, module)
        return cls(what, how, lambda: find_spec(module) is not None, identity=versions)

    @classmethod
    def distribution(cls, name: str, how: str) -> Need:
        """An installed distribution whose modules belong to a shared package."""
        what = f"the Python package '{name}'"
        return cls(what, how, lambda: bool(_version(name)), identity=partial(_version, name))

    @classmethod
    def program(cls, name: str, how: str) -> Need:
        """A program on the PATH."""
        what, find = f"the program '{name}' on the PATH", partial(shutil.which, name)
        found, identity = (lambda: find() is not None), (lambda: _content(find()))
        return cls(what, how, found, identity=identity, is_program=True)

    @classmethod
    def weights(cls, names: tuple[str, ...], how: str) -> Need:
        """One of some files of weights, best first, that the user puts into a folder where weights
        are looked for, or names with the option ``weights``."""
        what, find = f"its weights ({names[0]})", partial(find_weights, names)
        found, identity = (lambda: find() is not None), (lambda: _content(find()))
        return cls(what, how, found, "weights", identity)


def find_weights(names: tuple[str, ...]) -> Path | None:
    """The first of some files in ``$GLIDEREG_WEIGHTS`` or in the cache of weights, None without."""
    named = os.environ.get("GLIDEREG_WEIGHTS")
    folders = [Path(named).expanduser()] if named else []
    files = [folder / name for folder in (*folders, weights_folder()) for name in names]
    return next((file for file in files if file.is_file()), None)


def _version(distribution: str) -> str:
    """Of an installed distribution, else nothing."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def _versions_of_module(module: str) -> str:
    """Of the distributions that bring a module."""
    owners = metadata.packages_distributions().get(module, [])
    return " ".join(f"{name} {_version(name)}" for name in sorted(set(owners)))


def _content(path: str | Path | None) -> str:
    """sha256 of a file, nothing without one."""
    from ..volume import content_hash

    return "" if path is None else content_hash(path)


@dataclass(frozen=True)
class Method:
    """A registration method behind the one interface.

    ``module`` is a file of this folder; its ``register(fixed, moving, settings, progress,
    fixed_mask, moving_mask, landmark_constraints)`` does the work, and its dataclass ``Options``
    (if any) holds the method's own settings with the defaults of its paper. ``changes`` are
    settings and ``defaults`` options that make a variant. ``takes_masks`` and
    ``takes_landmarks``: whether masks and landmark constraints mean something to it; where they do
    not they are refused, never ignored.
    """

    name: str
    title: str
    paper: str
    link: str
    license_note: str
    module: str
    needs: tuple[Need, ...] = ()
    changes: dict[str, Any] = field(default_factory=dict)
    defaults: dict[str, Any] = field(default_factory=dict)
    takes_masks: bool = False
    takes_landmarks: bool = False

    @property
    def runs_programs(self) -> bool:
        """Whether it does its work in processes of other programs."""
        return any(need.is_program for need in self.needs)

    def require(self, options: dict[str, Any] | None = None) -> None:
        """Raises :class:`SettingsError` with the sentence of :meth:`missing` if there is one."""
        if (problem := self.missing(options)) is not None:
            raise SettingsError(problem)

    def load(self) -> ModuleType:
        """The module of the method (imports PyTorch)."""
        return import_module(f".{self.module}", __package__)

    def preload(self) -> ModuleType:
        """The module of the method, its packages imported too (this takes seconds)."""
        module = self.load()
        getattr(module, "preload", lambda: None)()
        return module

    def missing(self, options: dict[str, Any] | None = None) -> str | None:
        """None when it can run here (with these options), else one sentence that says how to get
        what is missing."""
        given = options or {}
        needs = [need for need in self.needs if not given.get(need.option)]
        lacking = [need for need in needs if not need.found()]
        if not lacking:
            return None
        return f"{self.title} needs " + "; and ".join(f"{n.what}: {n.how}" for n in lacking) + "."

    def options(self, values: dict[str, Any]) -> Any:
        """The method's ``Options`` with some values changed (plain values, as in JSON); None when
        it has none. Raises :class:`SettingsError` for unknown names and wrong types."""
        kind = getattr(self.load(), "Options", None)
        if kind is not None:
            return merged(kind(**self.defaults), values, f"options of the method {self.name}")
        if values:
            raise SettingsError(f"The method {self.name} has no options of its own.")
        return None

    def problems(self, values: dict[str, Any]) -> list[str]:
        """What is wrong with some options: half sentences, none when they can be used."""
        try:
            options = self.options(values)
        except SettingsError as error:
            return [str(error).rstrip(".")]
        return options.problems() if options is not None else []

    def register(
        self,
        fixed: Volume,
        moving: Volume,
        settings: Settings | None = None,
        progress: Progress | None = None,
        fixed_mask: Volume | None = None,
        moving_mask: Volume | None = None,
        landmark_constraints: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> Result:
        """Registers ``moving`` to ``fixed`` as :func:`GlideRegLib.register` does, with this method.

        ``settings.method_options`` count when ``settings.method`` is this one. Raises a
        :class:`GlideRegError` with one sentence, one too when the method cannot run here.
        """
        settings = settings or Settings()
        if settings.method != self.name:
            settings = replace(settings, method=self.name, method_options={})
        settings.check()
        self.require(settings.method_options)
        self._refuse("masks", self.takes_masks, fixed_mask is not None or moving_mask is not None)
        self._refuse("landmarks", self.takes_landmarks, landmark_constraints is not None)
        masks = (fixed_mask, moving_mask)
        progress = progress or Progress()
        run = self.load().register
        return run(fixed, moving, settings, progress, *masks, landmark_constraints)

    def _refuse(self, what: str, taken: bool, given: bool) -> None:
        if given and not taken:
            raise InputError(
                f"The method {self.name} cannot be guided by {what}; leave them out, or take glide."
            )
