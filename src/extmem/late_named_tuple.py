"""`NamedTuple`, as in the standard library, with a `__new__` that is compiled when it is first called.

`typing.NamedTuple` compiles each annotation and the constructor, ten times the time of the class itself, and a program
makes objects of few of the classes that it imports. A type checker gets that of the standard library.

All that named tuples have is there: defaults, `_fields`, `_make`, `_replace`, `_asdict`, patterns, pickles, and
`Generic` as a second base.
"""

from __future__ import annotations

import collections
from operator import itemgetter
from types import GenericAlias

TYPE_CHECKING = False
"""Like `typing.TYPE_CHECKING`, but without that module."""

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Self
    from typing import NamedTuple as NamedTuple

__all__ = ["NamedTuple"]

_getter: Callable[[int, str], Any] = getattr(
    collections, "_tuplegetter", lambda index, doc: property(itemgetter(index), doc=doc)
)
"""Makes the attribute of a field: the C type of `collections.namedtuple`, which is faster than a property."""
_DOCS = [f"Field {index}." for index in range(32)]


class _Fields(tuple):  # type: ignore[type-arg]  # the fields have types of their own
    """The methods of all named tuples."""

    __slots__ = ()
    _fields: tuple[str, ...] = ()
    __class_getitem__: Any = classmethod(GenericAlias)

    @classmethod
    def _make(cls, values: Iterable[Any]) -> Self:
        """Return a tuple of these values."""
        made = tuple.__new__(cls, values)
        if len(made) != len(cls._fields):
            raise TypeError(f"{cls.__name__} has {len(cls._fields)} fields, not {len(made)}")
        return made

    def _replace(self, /, **changes: Any) -> Self:
        """Return a tuple with other values of these fields."""
        made = tuple.__new__(self.__class__, map(changes.pop, self._fields, self))
        if changes:
            raise ValueError(f"{type(self).__name__} has no fields {list(changes)!r}; it has {', '.join(self._fields)}")
        return made

    def _asdict(self) -> dict[str, Any]:
        """Return the values by field."""
        return dict(zip(self._fields, self, strict=True))

    def __repr__(self) -> str:
        values = ", ".join([f"{name}={value!r}" for name, value in zip(self._fields, self, strict=True)])
        return f"{type(self).__name__}({values})"

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(self)


class _Body:
    """The base in a class statement. Those of the class itself are others."""

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        return (_Start,)


class _Making(type):
    """Makes the class of a class statement."""

    def __new__(mcs, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> Any:
        if not bases:
            return super().__new__(mcs, name, bases, body)
        fields = tuple(type(name, (), dict(body)).__annotations__)
        defaults = {field: body.pop(field) for field in fields if field in body}
        getters = {field: _getter(index, _DOCS[index]) for index, field in enumerate(fields)}

        def __new__(cls: Any, /, *arguments: Any, **named: Any) -> Any:
            first = _compiled_new(made, fields, tuple(defaults.values()))
            made.__new__ = staticmethod(first)
            return first(cls, *arguments, **named)

        made: Any = type(
            name,
            (_Fields,),
            {
                "__slots__": (),
                "__new__": __new__,
                "_fields": fields,
                "_field_defaults": defaults,
                "__match_args__": fields,
                **getters,
                **body,
            },
        )
        return made


class _Start(metaclass=_Making):
    """Calls `_Making` for a class statement."""


if not TYPE_CHECKING:
    NamedTuple = _Body()


def _compiled_new(cls: type, fields: tuple[str, ...], defaults: tuple[Any, ...]) -> Callable[..., Any]:
    names = ", ".join(fields)
    made: Any = eval(f"lambda _cls, {names}: _new(_cls, ({names},))", {"_new": tuple.__new__})  # as namedtuple does
    made.__defaults__ = defaults
    made.__name__ = "__new__"
    made.__qualname__ = f"{cls.__qualname__}.__new__"
    made.__module__ = cls.__module__
    return made  # type: ignore[no-any-return]
