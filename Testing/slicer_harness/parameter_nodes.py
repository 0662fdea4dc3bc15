"""Stand-in (tests only, not shipped) for `slicer.parameterNodeWrapper`.

Same storage in the vtkMRMLScriptedModuleNode and same manners as the real one, for the types that
GlideReg uses: MRML nodes, str, bool, int, float, paths, enums, and unions of them (`X | None`).
No lists, dictionaries, packs or colors. A type that is not supported raises at the decoration.
"""

from __future__ import annotations

import enum
import functools
import pathlib
import types
import typing
from typing import Any

import slicer
import slicer.util
import vtk

from .gui_connectors import (
    Choice,
    Connector,
    Decimals,
    Default,
    Exclude,
    Maximum,
    Minimum,
    NotNone,
    SingleStep,
    Validator,
    WithinRange,
    annotations_of,
    find,
)

__all__ = [
    "Choice",
    "Decimals",
    "Default",
    "Exclude",
    "Maximum",
    "Minimum",
    "NotNone",
    "SingleStep",
    "SlicerParameterNamePropertyName",
    "Validator",
    "WithinRange",
    "isParameterNodeWrapper",
    "parameterNodeWrapper",
]

SlicerParameterNamePropertyName = "SlicerParameterName"


class _Text:
    """A value that is one parameter string of the node; None is refused."""

    def __init__(self, kind: type) -> None:
        self.kind = kind

    def default(self) -> Any:
        return next(iter(self.kind)) if issubclass(self.kind, enum.Enum) else self.kind()

    def suits(self, kind: type) -> bool:
        if self.kind in (int, float):
            return kind in (int, float)
        same = issubclass if issubclass(self.kind, (enum.Enum, pathlib.PurePath)) else type.__eq__
        return same(kind, self.kind)

    def check(self, value: Any) -> None:
        if value is None:
            raise ValueError("Value must not be None")
        if not isinstance(value, (int, float) if self.kind is float else self.kind):
            raise TypeError(f"{value!r} is not a {self.kind.__name__}")

    def is_in(self, node: Any, name: str) -> bool:
        return node.HasParameter(name)

    def write(self, node: Any, name: str, value: Any) -> None:
        node.SetParameter(name, value.name if isinstance(value, enum.Enum) else str(value))

    def read(self, node: Any, name: str) -> Any:
        text = node.GetParameter(name)
        if self.kind is bool:
            return text == "True"
        if issubclass(self.kind, enum.Enum):
            if text not in self.kind.__members__:
                raise ValueError(f"{text!r} in the parameter node is not a name in {self.kind}")
            return self.kind[text]
        return self.kind(text)

    def remove(self, node: Any, name: str) -> None:
        node.UnsetParameter(name)


class _Node(_Text):
    """A node reference, whose role is the parameter's name; None is a value."""

    def default(self) -> None:
        return None

    def suits(self, kind: type) -> bool:
        return issubclass(kind, slicer.vtkMRMLNode)

    def check(self, value: Any) -> None:
        if value is not None and not isinstance(value, self.kind):
            raise TypeError(f"{value!r} is not a {self.kind.__name__}")

    def write(self, node: Any, name: str, value: Any) -> None:
        node.SetParameter(name, "")
        node.SetNodeReferenceID(name, value.GetID() if value is not None else None)

    def read(self, node: Any, name: str) -> Any:
        return node.GetNodeReference(name)

    def remove(self, node: Any, name: str) -> None:
        node.UnsetParameter(name)
        node.RemoveNodeReferenceIDs(name)


class _Nothing(_Text):
    """None, as a member of a union."""

    def check(self, value: Any) -> None:
        if value is not None:
            raise ValueError("Value must be None")

    def write(self, node: Any, name: str, value: Any) -> None:
        node.SetParameter(name, "True")

    def read(self, node: Any, name: str) -> None:
        return None


class _Union:
    """One of several types; member i is stored under `name.i`, also for `X | None`."""

    def __init__(self, members: list[Any]) -> None:
        self.members = members

    def default(self) -> Any:
        optional = len(self.members) == 2 and isinstance(self.members[1][0], _Nothing)
        return None if optional else self.members[0][0].default()

    def check(self, value: Any) -> None:
        self._member(value)

    def _member(self, value: Any) -> tuple[int, Any]:
        problem: Exception = TypeError(f"No type of the union takes {value!r}")
        for index, (store, validators) in enumerate(self.members):
            if store.suits(type(value)):
                try:
                    _check(store, validators, value)
                    return index, store
                except Exception as error:
                    problem = error
        raise problem

    def _stored(self, node: Any, name: str) -> list[tuple[str, Any]]:
        named = ((f"{name}.{i}", store) for i, (store, _) in enumerate(self.members))
        return [(key, store) for key, store in named if store.is_in(node, key)]

    def is_in(self, node: Any, name: str) -> bool:
        return bool(self._stored(node, name))

    def write(self, node: Any, name: str, value: Any) -> None:
        index, store = self._member(value)
        with slicer.util.NodeModify(node):
            for key, old in self._stored(node, name):
                old.remove(node, key)
            store.write(node, f"{name}.{index}", value)

    def read(self, node: Any, name: str) -> Any:
        key, store = self._stored(node, name)[0]
        return store.read(node, key)


def _check(store: Any, validators: list[Validator], value: Any) -> None:
    store.check(value)
    for validator in validators:
        validator.validate(value)


def _store(kind: Any) -> Any:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        members = [annotations_of(member) for member in typing.get_args(kind)]
        return _Union(
            [(_store(k), [n for n in notes if isinstance(n, Validator)]) for k, notes in members]
        )
    if kind is types.NoneType:
        return _Nothing(kind)
    if isinstance(kind, type) and issubclass(kind, slicer.vtkMRMLNode):
        return _Node(kind)
    simple = (str, bool, int, float)
    if kind in simple or issubclass(kind, (enum.Enum, pathlib.PurePath)):
        return _Text(kind)
    raise TypeError(f"This stand-in does not store parameters of type {kind}")


class _Parameter:
    """Name, type, store, validators and default of one annotated member."""

    def __init__(self, owner: type, name: str, annotated: Any) -> None:
        self.name, self.unalteredType = name, annotated
        self.kind, self.notes = annotations_of(annotated)
        self.store = _store(self.kind)
        self.validators = [note for note in self.notes if isinstance(note, Validator)]
        default = find(self.notes, Default) or Default(self.store.default())
        self.default = Default(getattr(owner, name)) if hasattr(owner, name) else default

    def write(self, node: Any, value: Any) -> None:
        _check(self.store, self.validators, value)
        self.store.write(node, self.name, value)

    def read(self, node: Any) -> Any:
        if not self.store.is_in(node, self.name):
            self.write(node, self.default.value)
        return self.store.read(node, self.name)


class _Wrapper:
    """What `parameterNodeWrapper` adds to a class; values are read again on ModifiedEvent."""

    allParameters: typing.ClassVar[dict[str, _Parameter]]

    def __init__(self, parameterNode: Any, prefix: str | None = None) -> None:
        self.parameterNode = parameterNode
        self._guis: dict[int, tuple[dict[str, Connector], int]] = {}
        self._values: dict[str, Any] = {}
        self._writing = self._updating = False
        for name, parameter in self.allParameters.items():
            if not parameter.store.is_in(parameterNode, name):
                parameter.write(parameterNode, parameter.default.value)
            self._values[name] = parameter.read(parameterNode)
        self.AddObserver(vtk.vtkCommand.ModifiedEvent, self._read_all)

    def _read_all(self, *_event: Any) -> None:
        if not self._writing:
            for name, parameter in self.allParameters.items():
                self._values[name] = parameter.read(self.parameterNode)

    def _known(self, name: str) -> _Parameter:
        if name not in self.allParameters:
            raise ValueError(f"Cannot find a param with the given name: {name}")
        return self.allParameters[name]

    def default(self, name: str) -> Default:
        return self._known(name).default

    def dataType(self, name: str) -> Any:
        return self._known(name).unalteredType

    def isCached(self, name: str) -> bool:
        return bool(self._known(name))

    def getValue(self, name: str) -> Any:
        self._known(name)
        return self._values[name]

    def setValue(self, name: str, value: Any) -> None:
        parameter = self._known(name)
        with slicer.util.NodeModify(self.parameterNode):
            parameter.write(self.parameterNode, value)
            self._values[name] = parameter.read(self.parameterNode)

    def StartModify(self) -> int:
        return self.parameterNode.StartModify()

    def EndModify(self, wasModifying: int) -> None:
        self.parameterNode.EndModify(wasModifying)

    def AddObserver(self, event: Any, callback: Any, priority: float = 0.0) -> int:
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag: int) -> None:
        self.parameterNode.RemoveObserver(tag)

    def Modified(self) -> None:
        self.parameterNode.Modified()

    def connectGui(self, gui: Any) -> int:
        """Connect the children (of a widget, or in an object) that name a parameter."""
        if getattr(gui, "isWidgetType", lambda: False)():
            import qt

            widgets = gui.findChildren(qt.QWidget)
        else:
            widgets = list(vars(gui).values())
        named = [(widget.property(SlicerParameterNamePropertyName), widget) for widget in widgets]
        return self.connectParametersToGui({name: widget for name, widget in named if name})

    def connectParametersToGui(self, mapping: dict[str, Any]) -> int:
        connectors = {name: Connector(w, self._known(name)) for name, w in mapping.items()}
        tag = max(self._guis, default=-1) + 1
        for name, connector in connectors.items():
            connector.write(self.getValue(name))
            connector.start(functools.partial(self._from_gui, name, connector))
        observer = self.AddObserver(vtk.vtkCommand.ModifiedEvent, self._to_gui)
        self._guis[tag] = (connectors, observer)
        return tag

    def disconnectGui(self, tag: int) -> None:
        connectors, observer = self._guis.pop(tag, ({}, None))
        for connector in connectors.values():
            connector.stop()
        if observer is not None:
            self.RemoveObserver(observer)

    def _from_gui(self, name: str, connector: Connector, *_signal_arguments: Any) -> None:
        if not self._updating:
            self.setValue(name, connector.read())

    def _to_gui(self, *_event: Any) -> None:
        if self._updating:
            return
        self._updating = True
        try:
            with slicer.util.NodeModify(self):
                for connectors, _ in self._guis.values():
                    for name, connector in connectors.items():
                        connector.write(self.getValue(name))
        finally:
            self._updating = False


def isParameterNodeWrapper(thing: Any) -> bool:
    return getattr(thing, "_is_parameter_node_wrapper", False)


def parameterNodeWrapper(classtype: type | None = None) -> Any:
    """Class decorator: annotated members become typed parameters of a parameter node."""
    if classtype is None:
        return parameterNodeWrapper
    members = typing.get_type_hints(classtype, include_extras=True)
    parameters = {name: _Parameter(classtype, name, kind) for name, kind in members.items()}
    for name in parameters:
        setattr(classtype, name, _property(name))
    classtype.__init__ = _Wrapper.__init__
    added = {k: v for k, v in vars(_Wrapper).items() if not k.startswith("__")}
    for name, value in {**added, "allParameters": parameters}.items():
        if hasattr(classtype, name):
            raise ValueError(f"Cannot use reserved name '{name}' in a parameterNodeWrapper")
        setattr(classtype, name, value)
    classtype._is_parameter_node_wrapper = True
    return classtype


def _property(name: str) -> property:
    return property(lambda s: s.getValue(name), lambda s, value: s.setValue(name, value))
