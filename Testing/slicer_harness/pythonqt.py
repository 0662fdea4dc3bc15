"""Stand-ins (tests only, not shipped) for Slicer's `qt` and `ctk` modules, over PySide6.

PythonQt lets a script read and write a Qt property as an attribute (`button.text = "Run"`), and
connects by signature (`button.connect("clicked(bool)", f)`). Every QObject class that is asked of
`qt` is therefore a small subclass of PySide6's, and `QUiLoader` builds `.ui` files out of those.
"""

from __future__ import annotations

import contextlib
import enum
import inspect
import tempfile
import types
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

from .constants import keep_constants_alive
from .slicer_parts import dialogs

_NATIVE_MODULES = (QtWidgets, QtGui, QtCore, QtUiTools)
_application: QtWidgets.QApplication | None = None


class _ClassManners(type(QtCore.QObject)):
    """`isinstance(x, qt.QWidget)` holds for every widget, also for plain PySide6 ones."""

    def __instancecheck__(cls, instance: object) -> bool:
        native = cls.__dict__.get("_native")
        return isinstance(instance, native) if native else super().__instancecheck__(instance)


class _Manners:
    """PythonQt's manners: properties are attributes, signals connect by their signature."""

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_"):
            return super().__getattribute__(name)
        if name in ("connect", "disconnect"):  # PySide6 looks these two up past Python classes
            return types.MethodType(getattr(_Manners, name), self)
        name = "objectName" if name == "name" else name
        if _has_property(self, name):
            try:
                return QtCore.QObject.property(self, name)
            except RuntimeError:  # flags, for which PySide6 has no converter
                return super().__getattribute__(name)()
        setter = name[3:4].lower() + name[4:] if name.startswith("set") else ""
        if setter and _has_property(self, setter) and _holds_enum(self, setter):
            return lambda value: setattr(self, setter, value)
        return super().__getattribute__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        name = "objectName" if name == "name" else name
        if _has_property(self, name):
            if isinstance(value, enum.Enum):
                value = value.value
            value = list(value) if isinstance(value, tuple) else value
            if not QtCore.QObject.setProperty(self, name, value):
                raise AttributeError(f"{type(self).__name__}.{name} does not take {value!r}")
        elif name.startswith("_") or "_stand_in" not in type(self).__dict__:
            super().__setattr__(name, value)
        elif not QUiLoader.busy:  # PySide6's loader puts each child on the root, PythonQt does not
            raise AttributeError(f"PythonQt lets nobody add {name!r} to a {type(self).__name__}")

    def findChildren(self, kind: Any = QtCore.QObject, *more: Any, **options: Any) -> list[Any]:
        kind = getattr(qt, kind) if isinstance(kind, str) else kind
        kind = kind.__dict__.get("_native", kind)
        return super().findChildren(kind, *more, **options)

    def findChild(self, kind: Any, name: str = "") -> Any:
        return next(iter(self.findChildren(kind, name) if name else self.findChildren(kind)), None)

    def className(self) -> str:
        return type(self).__name__

    def connect(self, signature: str, receiver: Any, slot: Any = None) -> bool:
        """`connect("clicked(bool)", f)` or `connect("clicked()", widget, "hide()")`."""
        if slot is not None:
            receiver = getattr(receiver, slot.partition("(")[0]) if isinstance(slot, str) else slot
        kept = self.__dict__.setdefault("_kept_slots", [])
        adapter = _with_fewer_arguments(receiver)
        kept.append((signature, receiver, adapter))
        return bool(QtCore.QObject.connect(self, _signal(self, signature), adapter))

    def disconnect(self, signature: str, receiver: Callable[..., Any]) -> bool:
        kept = self.__dict__.get("_kept_slots", [])
        for entry in kept:
            if entry[:2] == (signature, receiver):
                kept.remove(entry)
                return QtCore.QObject.disconnect(self, _signal(self, signature), entry[2])
        return False


def _has_property(instance: Any, name: str) -> bool:
    return QtCore.QObject.metaObject(instance).indexOfProperty(name) >= 0


def _holds_enum(instance: Any, name: str) -> bool:
    meta = QtCore.QObject.metaObject(instance)
    return meta.property(meta.indexOfProperty(name)).isEnumType()


def _signal(instance: Any, signature: str) -> str:
    """The signal as PySide6 knows it; a signal that does not exist is an error here."""
    signature = getattr(type(instance), "_signal_names", {}).get(signature, signature)
    meta = QtCore.QObject.metaObject(instance)
    normalized = bytes(QtCore.QMetaObject.normalizedSignature(signature).data()).decode()
    if meta.indexOfSignal(normalized) < 0:
        raise ValueError(f"{type(instance).__name__} has no signal {signature}")
    return QtCore.SIGNAL(normalized)


def _with_fewer_arguments(slot: Callable[..., Any]) -> Callable[..., Any]:
    """Drop the arguments that a Python function has no place for, counted as PythonQt counts."""
    code = getattr(getattr(slot, "__func__", slot), "__code__", None)
    if code is None or code.co_flags & inspect.CO_VARARGS:
        return lambda *arguments: slot(*arguments)
    places = code.co_argcount - (1 if inspect.ismethod(slot) else 0)
    return lambda *arguments: slot(*arguments[:places])


def with_manners(native: type) -> type:
    """The subclass of a PySide6 class that behaves as PythonQt's class of the same name."""
    parts = {"_native": native, "_stand_in": True, "__module__": "qt"}
    return _ClassManners(native.__name__, (_Manners, native), parts)


class QMessageBox(with_manners(QtWidgets.QMessageBox)):
    """Never waits: what it says is recorded, the answer is `dialogs.answers["QMessageBox"]`."""

    def exec(self) -> Any:
        return dialogs.ask("QMessageBox", self.text, QtWidgets.QMessageBox.StandardButton.Ok)

    exec_ = exec

    @staticmethod
    def _say(parent: Any, title: str, text: str = "", *_rest: Any) -> Any:
        return dialogs.ask("QMessageBox", text, QtWidgets.QMessageBox.StandardButton.Ok)

    information = warning = critical = question = about = _say


class QDialog(with_manners(QtWidgets.QDialog)):
    """Never waits: `exec` is recorded, the answer is `dialogs.answers["QDialog"]`."""

    def exec(self) -> Any:
        return dialogs.ask("QDialog", self.windowTitle, 0)

    exec_ = exec


class QFileDialog(with_manners(QtWidgets.QFileDialog)):
    """Never waits: answers `dialogs.answers["QFileDialog"]`, by default nothing chosen."""

    @staticmethod
    def _choose(parent: Any = None, title: str = "", *_rest: Any) -> Any:
        return dialogs.ask("QFileDialog", title, "")

    getOpenFileName = getSaveFileName = getExistingDirectory = getOpenFileNames = _choose


class QDesktopServices:
    """Opens nothing, records the address."""

    @staticmethod
    def openUrl(url: QtCore.QUrl) -> bool:
        return dialogs.ask("openUrl", url.toString(), True)


class QUiLoader(QtUiTools.QUiLoader):
    """Reads a `.ui` file with the stand-ins in the place of Slicer's and CTK's widgets.

    What Qt cannot do with Python classes is done by hand: enum values of ctk and qMRML widgets, and
    connections that carry a VTK object. A connection that the file lacks is not made, as in Slicer.
    """

    busy = False

    def load(self, device: Any, parent: Any = None) -> Any:
        source = ElementTree.fromstring(bytes(device.readAll().data()))
        self._unknown: list[str] = []
        enums, connections = _take_enums(source), _take_vtk_connections(source)
        buffer = QtCore.QBuffer()
        buffer.setData(ElementTree.tostring(source))
        QUiLoader.busy = True
        try:
            root = super().load(buffer, parent)
        finally:
            QUiLoader.busy = False
        if self._unknown:
            raise RuntimeError(f"no stand-in for {', '.join(self._unknown)}")
        found = {_name(child): child for child in [root, *root.findChildren(QtCore.QObject)]}
        for owner, name, value in enums:
            setattr(found[owner], name, value)
        for sender, signal, receiver, slot in connections:
            found[sender].connect(signal, found[receiver], slot)
        for child in found.values():
            if hasattr(child, "_after_loading"):
                child._after_loading()
        return root

    def createWidget(self, className: str, parent: Any = None, name: str = "") -> Any:
        if className == "Line":
            return super().createWidget(className, parent, name)
        widget_class = getattr(qt if className.startswith("Q") else ctk, className, None)
        if widget_class is None or widget_class.__dict__.get("_placeholder"):
            self._unknown.append(className)
            return None
        widget = widget_class(parent)
        widget.objectName = name
        return widget

    def createLayout(self, className: str, parent: Any = None, name: str = "") -> Any:
        layout = getattr(qt, className)(parent if isinstance(parent, QtWidgets.QWidget) else None)
        layout.objectName = name
        return layout


def _name(instance: QtCore.QObject) -> str:
    return QtCore.QObject.objectName(instance)


def _take_enums(source: ElementTree.Element) -> list[tuple[str, str, int]]:
    from . import widgets

    taken = []
    for widget in source.iter("widget"):
        for item in widget.findall("property"):
            text = item.findtext("set") or item.findtext("enum") or ""
            if text.startswith(("ctk", "qMRML")):
                parts = [part.split("::") for part in text.split("|")]
                value = sum(getattr(getattr(widgets, part[0]), part[-1]) for part in parts)
                taken.append((widget.get("name", ""), item.get("name", ""), value))
                widget.remove(item)
    return taken


def _take_vtk_connections(source: ElementTree.Element) -> list[list[str]]:
    taken = []
    for group in source.iter("connections"):
        for item in list(group):
            if "vtkMRML" in (item.findtext("signal") or ""):
                names = ("sender", "signal", "receiver", "slot")
                taken.append([item.findtext(name) or "" for name in names])
                group.remove(item)
    return taken


def _qt_attribute(name: str) -> Any:
    """Find `qt.<name>` in PySide6, once; QObject classes get PythonQt's manners."""
    for module in _NATIVE_MODULES:
        value = getattr(module, name, None)
        if value is not None:
            break
    else:
        raise AttributeError(f"qt has no {name}")
    gets_manners = isinstance(value, type) and issubclass(value, QtCore.QObject)
    if gets_manners and not issubclass(value, QtCore.QCoreApplication):
        value = with_manners(value)
    setattr(qt, name, value)
    return value


def _ctk_attribute(name: str) -> Any:
    """A widget stand-in; for other ctk names a class that nothing is an instance of."""
    from . import widgets

    value = getattr(widgets, name, None)
    if value is None:
        if not name.startswith("ctk"):
            raise AttributeError(f"ctk has no {name}")
        value = type(name, (), {"_placeholder": True})
    setattr(ctk, name, value)
    return value


qt: Any = types.ModuleType("qt", __doc__)
ctk: Any = types.ModuleType("ctk", __doc__)
qt.__getattr__, ctk.__getattr__ = _qt_attribute, _ctk_attribute
for _own in (QMessageBox, QDialog, QFileDialog, QDesktopServices, QUiLoader):
    setattr(qt, _own.__name__, _own)
ctk.ctkMessageBox = QMessageBox


def start_application() -> QtWidgets.QApplication:
    """The one QApplication, looking the same on every machine, with settings of its own."""
    global _application
    keep_constants_alive()
    _application = QtWidgets.QApplication.instance() or QtWidgets.QApplication(["GlideReg tests"])
    _application.setOrganizationName("GlideReg stand-ins")
    _application.setStyle("Fusion")
    with contextlib.suppress(AttributeError):  # Qt 6.8 and later
        _application.styleHints().setColorScheme(QtCore.Qt.ColorScheme.Light)
    settings = QtCore.QSettings
    settings.setDefaultFormat(settings.Format.IniFormat)
    folder = tempfile.mkdtemp(prefix="glidereg-settings-")
    settings.setPath(settings.Format.IniFormat, settings.Scope.UserScope, folder)
    return _application
