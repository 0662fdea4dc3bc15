"""Stand-ins (tests only, not shipped) for the connectors between parameters and widgets.

Also the annotations that a parameter may have: they decide a widget's range and choices.
"""

from __future__ import annotations

import dataclasses
import enum
import pathlib
import types
import typing
from collections.abc import Callable
from typing import Any

import slicer


class Validator:
    """Base of the annotations that refuse a value, by raising."""

    def validate(self, value: Any) -> None:
        raise NotImplementedError


def _validator(name: str, fields: list[str], good: Callable[..., bool]) -> type:
    def validate(self: Any, value: Any) -> None:
        if not good(self, value):
            raise ValueError(f"{value!r} does not satisfy {self}")

    return dataclasses.make_dataclass(
        name, fields, bases=(Validator,), namespace={"validate": validate}
    )


NotNone = _validator("NotNone", [], lambda s, v: v is not None)
WithinRange = _validator(
    "WithinRange", ["minimum", "maximum"], lambda s, v: s.minimum <= v <= s.maximum
)
Minimum = _validator("Minimum", ["minimum"], lambda s, v: v >= s.minimum)
Maximum = _validator("Maximum", ["maximum"], lambda s, v: v <= s.maximum)
Choice = _validator("Choice", ["choices"], lambda s, v: v in s.choices)
Exclude = _validator("Exclude", ["excludedValues"], lambda s, v: v not in s.excludedValues)
Decimals = dataclasses.make_dataclass("Decimals", ["value"])
SingleStep = dataclasses.make_dataclass("SingleStep", ["value"])


class Default:
    """The value that a parameter starts with; a generator is asked anew each time."""

    def __init__(self, value: Any = None, *, generator: Callable[[], Any] | None = None) -> None:
        self._value, self._generator = value, generator

    @property
    def value(self) -> Any:
        return self._generator() if self._generator else self._value


def annotations_of(kind: Any) -> tuple[Any, list[Any]]:
    base, *notes = typing.get_args(typing.Annotated[kind, None])
    return base, notes[:-1]


def find(notes: list[Any], kind: type) -> Any:
    return next((note for note in notes if isinstance(note, kind)), None)


_VALUE_WIDGETS = {
    "QDoubleSpinBox": (float, int),
    "ctkSliderWidget": (float, int),
    "ctkDoubleSpinBox": (float, int),
    "QSpinBox": (int,),
    "QSlider": (int,),
}
_OTHERS = {
    "QCheckBox": ("checked", "stateChanged", bool),
    "ctkCheckBox": ("checked", "stateChanged", bool),
    "QPushButton": ("checked", "toggled", bool),
    "QLineEdit": ("text", "textChanged", str),
    "QLabel": ("text", None, str),
    "ctkPathLineEdit": ("currentPath", "currentPathChanged", pathlib.PurePath),
}


class Connector:
    """One widget that shows one parameter; refuses the pairs that the real one refuses."""

    def __init__(self, widget: Any, parameter: Any) -> None:
        self.widget, self.kind, self.slot = widget, parameter.kind, None
        self.items: list[Any] | None = None
        self.property, self.signal = "", None
        name, plain = type(widget).__name__, isinstance(self.kind, type)
        if plain and self.kind in _VALUE_WIDGETS.get(name, ()):
            self.property, self.signal = "value", "valueChanged"
            self._set_range(name, parameter.notes)
        elif plain and name in _OTHERS and issubclass(self.kind, _OTHERS[name][2]):
            self.property, self.signal, _ = _OTHERS[name]
        elif plain and name in ("QComboBox", "ctkComboBox"):
            self._fill(find(parameter.notes, Choice))
        elif name == "qMRMLNodeComboBox" and _node_types(self.kind):
            self.signal, widget.nodeTypes = "currentNodeChanged", _node_types(self.kind)
        else:
            raise RuntimeError(f"Unable to create GUI connector from {self.kind} to {name}")
        if name == "QPushButton":
            widget.checkable = True

    def _fill(self, choice: Any) -> None:
        self.property, self.signal = "currentIndex", "currentIndexChanged"
        if issubclass(self.kind, enum.Enum):
            self.items = list(self.kind)
            labels = [getattr(self.kind, "label", lambda item: item.name)(i) for i in self.items]
        elif choice is None:
            raise RuntimeError("A combo box for a plain value needs a Choice annotation")
        else:
            self.items, labels = choice.choices, [str(item) for item in choice.choices]
        self.widget.clear()
        for label in labels:
            self.widget.addItem(label)

    def _set_range(self, name: str, notes: list[Any]) -> None:
        both = find(notes, WithinRange)
        low, high = both or find(notes, Minimum), both or find(notes, Maximum)
        if name in ("ctkSliderWidget", "QSlider") and not (low and high):
            raise RuntimeError(f"Cannot have a connection to {name} where the type is unbounded")
        decimals, step = find(notes, Decimals), find(notes, SingleStep)
        if "Double" in name or "ctk" in name:
            unbounded = (float("-inf"), float("inf"))
            if decimals or self.kind is int:
                self.widget.decimals = 0 if self.kind is int else decimals.value
        else:
            unbounded = (-(2**31), 2**31 - 1)
        if step:
            self.widget.singleStep = step.value
        self.widget.minimum = low.minimum if low else unbounded[0]
        self.widget.maximum = high.maximum if high else unbounded[1]

    def start(self, slot: Callable[[], None]) -> None:
        self.slot = slot
        if self.signal:
            getattr(self.widget, self.signal).connect(slot)

    def stop(self) -> None:
        if self.signal:
            getattr(self.widget, self.signal).disconnect(self.slot)

    def read(self) -> Any:
        if not self.property:
            return self.widget.currentNode()
        value = getattr(self.widget, self.property)
        return self.items[value] if self.items is not None else self.kind(value)

    def write(self, value: Any) -> None:
        if not self.property:
            self.widget.setCurrentNode(value)
        elif self.items is not None:
            self.widget.currentIndex = list(self.items).index(value)
        elif (value := str(value) if self.property in ("text", "currentPath") else value) != (
            getattr(self.widget, self.property)
        ):
            setattr(self.widget, self.property, value)


def _node_types(kind: Any) -> tuple[str, ...]:
    """Class names of a node type or of a union of node types (and None), else nothing."""
    members = [annotations_of(m)[0] for m in typing.get_args(kind) or (kind,)]
    nodes = [m for m in members if m is not types.NoneType]
    if not all(isinstance(m, type) and issubclass(m, slicer.vtkMRMLNode) for m in nodes):
        return ()
    return tuple(m().GetClassName() for m in nodes)
