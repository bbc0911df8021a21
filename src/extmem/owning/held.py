"""`Held`: what is given back once nobody holds it; `Use` and `Uses` hold it for a block. See the package."""

from __future__ import annotations

from threading import get_ident
from types import TracebackType
from typing import Final, Generic, NoReturn, Self, TypeVar

from extmem.errors import ExtmemError, HandleStateError, UnsupportedError
from extmem.owning.signal_handlers import raised_by_handler

__all__ = ["Held", "Use", "Uses", "unsettled", "work_off"]

H = TypeVar("H", bound="Held")

unsettled: Final[dict[Held, int]] = {}
"""What is being given back, by the thread that does it; 0 where it failed, so that anybody may try again."""


def work_off() -> None:
    """Give back what could not be given back when it was closed: it failed, or an exception in this thread ended it.

    Never raises for what cannot be given back now.
    """
    here = get_ident()
    for held, thread in list(unsettled.items()):
        if thread in (0, here):
            held.try_to_end()


class Held:
    """What is given back once nobody holds it. Subclasses say what that is (`give_back`)."""

    __slots__ = ("__weakref__", "_gate", "closing")

    def __init__(self) -> None:
        self._gate = bytearray(1)
        self.closing = False
        """Whether it was closed: whoever lets go of it last gives it back."""

    def __reduce__(self) -> NoReturn:
        """The copy module and pickle are refused: two objects would own one thing. Errors: UnsupportedError."""
        raise UnsupportedError(
            f"{self!r} is not copied and not pickled: it owns what one object alone may give back; use the object "
            "itself, or make another one (memory objects and handles can be pickled)",
            requires_one_of=["memory and handles"],
        )

    def hold(self) -> memoryview:
        """Keeps it from being given back while the result exists: `with owner.hold():`.

        Errors: what `gone` returns, once it was given back.
        """
        hold = memoryview(self._gate)
        if not hold.nbytes:
            raise self.gone()
        return hold

    @property
    def origin(self) -> object:
        """What was made with this and keeps nothing, for the `source` of a warning: tracemalloc says where."""
        return self._gate

    def use(self) -> Use[Self]:
        """Hold it for the time of a block, at whose end it is given back if it was closed meanwhile.

        Errors: as `hold`.
        """
        return Use(self)

    def gone(self) -> Exception:
        """What to raise where it is used after it was given back."""
        return HandleStateError("this was given back; open or allocate it again")

    def reserve(self) -> None:
        """Let nobody hold it from now on. Errors: BufferError while somebody does; nothing has changed then."""
        self._gate.clear()

    def settle(self) -> bool:
        """Give it back, unless somebody holds it. Whether it is given back.

        Safe to repeat, also after an exception. Errors: as `give_back`.
        """
        try:
            self._gate.clear()
        except BufferError:
            return False
        self.give_back()
        return True

    def end(self) -> bool:
        """Close it: give it back now, or leave that to whoever lets go of it last. Whether it is given back.

        Safe to repeat, also after an exception. Errors: as `give_back`; `work_off` tries again.
        """
        unsettled[self] = get_ident()
        self.closing = True
        try:
            done = self.settle()
        except BaseException:
            unsettled[self] = 0
            raise
        unsettled.pop(self, None)
        return done

    def try_to_end(self) -> None:
        """`end`, and a warning in the log where it fails. Errors: those of signal handlers alone."""
        try:
            self.end()
        except (ExtmemError, OSError) as error:
            if raised_by_handler(error):
                raise
            import logging  # loaded by now where anything was shared (`soon`), but opening a device needs none

            logging.getLogger("extmem").warning("%r could not be given back: %s; tried again later", self, error)

    def give_back(self) -> None:
        """Give it back now; whoever calls this makes sure that nobody uses it. Safe to repeat."""
        raise AssertionError(f"{type(self).__name__} defines give_back")  # pragma: no cover


class Use(Generic[H]):
    """See `Held.use`. It is not kept anywhere but in its `with` statement, so that it ends with that."""

    __slots__ = ("_held", "_hold")

    def __init__(self, held: H) -> None:
        self._held = held
        self._hold: memoryview | None = held.hold()

    def __enter__(self) -> H:
        return self._held

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # No signal handler runs between the two: there is no call. (Letting go of the memoryview ends the hold.)
        self._hold = None
        if self._held.closing:
            unsettled[self._held] = 0
            self._held.try_to_end()


class Uses:
    """Holds on several things, for the time of a block or until `end`; see `Held.use`."""

    __slots__ = ("_holds",)

    def __init__(self) -> None:
        self._holds: dict[Held, memoryview] = {}

    def add(self, held: H) -> H:
        """Hold it, once. Errors: as `Held.hold`."""
        if held not in self._holds:
            self._holds[held] = held.hold()
        return held

    def add_all(self, others: Uses) -> None:
        """Hold what `others` hold."""
        for held in list(others._holds):
            self.add(held)

    def end(self) -> None:
        """Let go of all; what was closed meanwhile is given back."""
        holds = self._holds
        while holds:
            held = next(iter(holds))
            del holds[held]  # as in `Use`, no signal handler runs before the next line
            if held.closing:
                unsettled[held] = 0
                held.try_to_end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
