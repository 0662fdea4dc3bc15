"""Stand-ins with which GlideReg's real module panel runs without the Slicer desktop.

These are stand-ins: for tests only, never shipped, and no proof of what the desktop itself does.
What is real: the `.ui` file (loaded by Qt's own QUiLoader), every vtkMRML class and `slicer.util`
(from slicer-core), and all of GlideReg. What is stood in for: PythonQt's manners and CTK's and
qMRML's widgets (`pythonqt`, `widgets`), and what slicer-core lacks of `slicer` (`slicer_parts`,
`parameter_nodes`).

Call `install()` before anything imports `qt`, or a module of the panel. If the environment variable
GLIDEREG_SLICER_SOURCES names a folder with Slicer's Base/Python, the pure Python modules there
(`parameterNodeWrapper`, `i18n`, `packaging`, `ScriptedLoadableModule`) are used in place of ours.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType, TracebackType
from typing import Any

_REAL = ("i18n", "packaging", "parameterNodeWrapper", "ScriptedLoadableModule")
_installed: set[str] = set()
unhandled: list[BaseException] = []
"""Exceptions that slots and VTK observers raised: Qt and VTK print them and go on."""


def install(qt: bool = True) -> None:
    """Register the stand-ins; without `qt`, those that need no PySide6. May be called again."""
    import slicer

    from . import parameter_nodes, slicer_parts

    if "slicer" not in _installed:
        _installed.add("slicer")
        slicer_parts.add_to_slicer()
        for name, module in slicer_parts.stand_in_modules().items():
            _register(name, module)
        _register("parameterNodeWrapper", parameter_nodes)
        _never_install(slicer)
    if qt and "qt" not in _installed:
        _installed.add("qt")
        os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
        from . import pythonqt, widgets

        pythonqt.start_application()
        sys.modules["qt"], sys.modules["ctk"] = pythonqt.qt, pythonqt.ctk
        widgets.add_to(slicer)
        sys.excepthook = _remember
        if os.environ.get("GLIDEREG_SLICER_SOURCES"):
            _use_the_real_ones(slicer)


def _register(name: str, module: ModuleType) -> None:
    import slicer

    sys.modules[f"slicer.{name}"] = module
    setattr(slicer, name, module)


def _use_the_real_ones(slicer: Any) -> None:
    """Slicer's own Python files, over the Qt stand-ins; they may still not install anything."""
    folder = os.path.join(os.environ["GLIDEREG_SLICER_SOURCES"], "slicer")
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"GLIDEREG_SLICER_SOURCES has no folder slicer: {folder}")
    for name in _REAL:
        del sys.modules[f"slicer.{name}"]
    slicer.__path__ = [*slicer.__path__, folder]
    for name in _REAL:
        setattr(slicer, name, importlib.import_module(f"slicer.{name}"))
    _never_install(slicer)


def _never_install(slicer: Any) -> None:
    from .slicer_parts import installer

    slicer.packaging.pip_ensure = installer.pip_ensure
    slicer.packaging.pip_install = slicer.util.pip_install = installer.pip_install


def _remember(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    unhandled.append(error)
    sys.__excepthook__(kind, error, trace)
