"""`dataclass`, as in the standard library, with an `__init__` that is compiled when it is first called.

The standard decorator compiles six functions for each class, which takes as long as importing several small modules,
and a program uses few of the classes that it imports. A type checker gets the decorator of the standard library.

What is supported is what this library uses: `repr`, `eq`, `frozen` and `slots`, defaults, `field(default_factory=…)`,
`ClassVar` under that name, `__post_init__`, and bases that are such classes. `dataclasses.fields`, `replace` and
`asdict`, `inspect.signature`, copying and pickling work as with other dataclasses.

Threads may make the first call at once: each compiles the function, and the last result stays.
"""

from __future__ import annotations

from operator import attrgetter

from extmem.forks import no_fork

TYPE_CHECKING = False
"""Like `typing.TYPE_CHECKING`, but without that module."""

if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import dataclass as dataclass
    from dataclasses import field as field
    from dataclasses import replace as replace
    from typing import Any, TypeAlias

    Values: TypeAlias = dict[str, tuple[Any, Any]]
    """Field → its type, as text, and its default: `ABSENT`, a `Factory`, or the value."""

__all__ = ["ABSENT", "Factory", "StandardFields", "dataclass", "field", "replace"]

ABSENT: Any = object()
"""The default of a field that has none."""
_OWN = "__late_dataclass__"
"""The attribute of a class with its fields, those of its bases first."""


class Factory:
    """The default of a field that calls a function for each object."""

    __slots__ = ("make",)

    def __init__(self, make: Callable[[], object]) -> None:
        self.make = make


class StandardFields:
    """`__dataclass_fields__` of a class, by which the standard library knows it: made at the first use."""

    __slots__ = ("_fields", "_values")

    def __init__(self, values: Callable[[type], Values]) -> None:
        """values: returns the fields of a class."""
        self._values = values
        self._fields: dict[type, dict[str, Any]] = {}

    def __get__(self, instance: object, owner: type | None = None) -> dict[str, Any]:
        cls = owner or type(instance)
        found = self._fields.get(cls)
        if found is None:
            found = self._fields.setdefault(cls, _standard_fields(self._values(cls)))
        return found


def _standard_fields(values: Values) -> dict[str, Any]:
    with no_fork():
        from dataclasses import dataclass as standard
        from dataclasses import field as standard_field

    namespace: dict[str, Any] = {"__annotations__": {name: kind for name, (kind, _) in values.items()}}
    for name, (_, default) in values.items():
        if isinstance(default, Factory):
            namespace[name] = standard_field(default_factory=default.make)
        elif default is not ABSENT:
            namespace[name] = standard_field(default=default)
    plain: Any = standard(init=False, repr=False, eq=False)(type("_", (), namespace))
    fields: dict[str, Any] = plain.__dataclass_fields__
    return fields


if not TYPE_CHECKING:

    def field(*, default_factory):
        """Return the default of a field that calls `default_factory` for each object."""
        return Factory(default_factory)

    def dataclass(*, slots, frozen=False, repr=True, eq=True):
        """Return a decorator that makes a class a dataclass. slots: must be True. See the module."""
        if not slots:
            raise TypeError("late_dataclass makes classes with slots only: write slots=True, or use dataclasses")
        return lambda cls: _made(cls, frozen, repr, eq)

    def replace(instance, /, **changes):
        """Return a copy of an object of a dataclass with other values."""
        kept = {name: getattr(instance, name) for name in instance.__match_args__ if name not in changes}
        return instance.__class__(**kept, **changes)


def _made(cls: type, frozen: bool, shown: bool, compared: bool) -> type:
    """Return the class again, with slots and methods. Those that its body defines stay."""
    own: Values = {
        name: (kind, cls.__dict__.get(name, ABSENT))
        for name, kind in cls.__annotations__.items()
        if not kind.startswith("ClassVar")
    }
    values = {**_inherited(cls), **own}
    methods = _methods(tuple(values), frozen, shown, compared)
    body = {name: one for name, one in cls.__dict__.items() if name not in (*own, "__dict__", "__weakref__")}
    inherited = {name for base in cls.__mro__ for name in base.__dict__.get("__slots__", ())}
    body["__slots__"] = tuple(name for name in own if name not in inherited)
    made: Any = type(cls)(cls.__name__, cls.__bases__, {**methods, _OWN: own, **body})
    if "__init__" not in body:
        made.__init__ = _first_init(made, values, frozen)
    return made  # type: ignore[no-any-return]


def _inherited(cls: type) -> Values:
    values: Values = {}
    for base in cls.__mro__[:0:-1]:
        values |= base.__dict__.get(_OWN, {})
    return values


def _values_of(cls: type) -> Values:
    return {**_inherited(cls), **cls.__dict__.get(_OWN, {})}


def _first_init(cls: Any, values: Values, frozen: bool) -> Callable[..., None]:
    def __init__(self: Any, *arguments: Any, **named: Any) -> None:
        cls.__init__ = init = _compiled_init(cls, values, frozen)
        init(self, *arguments, **named)

    return __init__


def _compiled_init(cls: type, values: Values, frozen: bool) -> Callable[..., None]:
    known: dict[str, Any] = {"_set": object.__setattr__, "_absent": ABSENT}
    parameters = ["self"]
    lines = [" pass"]
    for name, (_, default) in values.items():
        value = name
        if isinstance(default, Factory):
            known[f"_default_{name}"] = default.make
            parameters.append(f"{name}=_absent")
            value = f"_default_{name}() if {name} is _absent else {name}"
        elif default is not ABSENT:
            known[f"_default_{name}"] = default
            parameters.append(f"{name}=_default_{name}")
        else:
            parameters.append(name)
        lines.append(f" _set(self, {name!r}, {value})" if frozen else f" self.{name} = {value}")
    if hasattr(cls, "__post_init__"):
        lines.append(" self.__post_init__()")
    exec("\n".join([f"def __init__({', '.join(parameters)}):", *lines]), known)  # as the standard decorator does
    init: Callable[..., None] = known["__init__"]
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    init.__module__ = cls.__module__
    return init


def _methods(names: tuple[str, ...], frozen: bool, shown: bool, compared: bool) -> dict[str, Any]:
    key: Callable[[Any], Any] = attrgetter(*names) if names else type  # objects without fields are equal
    methods: dict[str, Any] = {
        "__match_args__": names,
        "__dataclass_fields__": _FIELDS,
        "__signature__": _SIGNATURE,
    }

    def __repr__(self: Any) -> str:
        values = ", ".join([f"{name}={getattr(self, name)!r}" for name in names])
        return f"{self.__class__.__qualname__}({values})"

    def __eq__(self: Any, other: object) -> Any:
        return key(self) == key(other) if other.__class__ is self.__class__ else NotImplemented

    def __hash__(self: Any) -> int:
        return hash(key(self))

    def __getstate__(self: Any) -> list[Any]:
        return [getattr(self, name) for name in names]

    def __setstate__(self: Any, state: list[Any]) -> None:
        for name, value in zip(names, state, strict=True):
            object.__setattr__(self, name, value)

    if shown:
        methods["__repr__"] = __repr__
    if compared:
        methods["__eq__"] = __eq__
        methods["__hash__"] = __hash__ if frozen else None
    if frozen:
        methods |= {
            "__setattr__": _refuse_assignment,
            "__delattr__": _refuse_deletion,
            "__getstate__": __getstate__,
            "__setstate__": __setstate__,
        }
    return methods


def _refuse_assignment(self: object, name: str, value: object) -> None:
    with no_fork():
        from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_deletion(self: object, name: str) -> None:
    with no_fork():
        from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot delete field {name!r}")


class _Signature:
    """`__signature__` of a class, because that of the first `__init__` takes any arguments."""

    __slots__ = ()

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        with no_fork():
            from inspect import Parameter, Signature

        parameters = []
        for name, (kind, default) in _values_of(owner or type(instance)).items():
            shown = Parameter.empty if default is ABSENT else default.make if isinstance(default, Factory) else default
            parameters.append(Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=shown, annotation=kind))
        return Signature(parameters, return_annotation=None)


_FIELDS = StandardFields(_values_of)
_SIGNATURE = _Signature()
