"""A folder that is written whole or not at all. Light: 3D Slicer's own process uses it, too."""

from __future__ import annotations

import errno
import shutil
import uuid
from pathlib import Path

from .errors import OutputError
from .volume import first_sentence


class whole_folder:  # noqa: N801 - used as a function, like contextlib.suppress
    """``with whole_folder(target) as partial:`` files written into ``partial`` reach ``target``
    when the block ends well, and vanish otherwise. Files of the same name are replaced."""

    def __init__(self, target: str | Path) -> None:
        self._target = Path(target)
        self._partial = self._target / f".partial-{uuid.uuid4().hex[:8]}"
        self._made: list[Path] = []

    def __enter__(self) -> Path:
        try:
            missing = self._target
            while not missing.exists():
                self._made.append(missing)
                missing = missing.parent
            self._partial.mkdir(parents=True)
        except OSError as error:
            raise OutputError(
                f"The output folder '{self._target}' cannot be written "
                f"({error.strerror or error}); choose another one."
            ) from error
        return self._partial

    def __exit__(self, kind: type | None, error: BaseException | None, _: object) -> None:
        try:
            if kind is None:
                self._move()
        except OSError as failure:
            kind = type(failure)
            raise OutputError(
                f"The results cannot be moved into '{self._target}' ({failure.strerror})."
            ) from failure
        finally:
            shutil.rmtree(self._partial, ignore_errors=True)
            if kind is not None:
                self._remove_made()
        if isinstance(error, OSError | RuntimeError) and not isinstance(error, OutputError):
            raise OutputError(
                f"The results cannot be written to '{self._target}' ({first_sentence(error)})."
            ) from error

    def _move(self) -> None:
        """Moves all files to the target or none: what they replace is kept until the end."""
        aside = self._partial / ".replaced"
        files = sorted(self._partial.iterdir())
        aside.mkdir()
        placed: list[Path] = []
        try:
            for file in files:
                target = self._target / file.name
                if target.is_dir():
                    raise IsADirectoryError(errno.EISDIR, f"'{file.name}' is a folder there")
                if target.exists():
                    target.replace(aside / file.name)
                file.replace(target)
                placed.append(target)
        except OSError:
            for target in placed:
                target.unlink()
            for file in aside.iterdir():
                file.replace(self._target / file.name)
            raise

    def _remove_made(self) -> None:
        for folder in self._made:
            try:
                folder.rmdir()
            except OSError:
                return
