"""`Held`: a resource that is released once there is no hold on it; `Use` and `Uses` hold it for a block.

The package has the reasons.
"""

from __future__ import annotations

from threading import get_ident
from types import TracebackType
from typing import Final, Generic, NoReturn, Self, TypeVar

from extmem.errors import ExtmemError, HandleStateError, UnsupportedError
from extmem.forks import no_fork
from extmem.owning.signal_handlers import raised_by_handler

__all__ = ["Held", "Use", "Uses", "unsettled", "work_off"]

H = TypeVar("H", bound="Held")

unsettled: Final[dict[Held, int]] = {}
"""Resources whose release is not complete, with the id of the releasing thread; 0 if it failed and can be tried
again."""


def work_off() -> None:
    """Release what could not be released when it was closed: the release failed, or an exception in this thread ended
    it.

    Failures are logged, and are tried again by the next call.
    """
    this_thread = get_ident()
    for held, thread in list(unsettled.items()):
        if thread in (0, this_thread):
            held.try_to_end()


class Held:
    """A resource that is released once there is no hold on it. Subclasses define the release (`give_back`)."""

    __slots__ = ("__weakref__", "_gate", "closing")

    def __init__(self) -> None:
        self._gate = bytearray(1)
        self.closing = False
        """Whether it was closed: the end of the last hold releases it."""

    def __reduce__(self) -> NoReturn:
        """Refuse the copy module and pickle, since two objects would own one resource. Errors: UnsupportedError."""
        raise UnsupportedError(
            f"{self!r} is not copied and not pickled: it owns a resource that only one object may release; use the "
            "object itself, or make another one (memory objects and handles can be pickled)",
            requires_one_of=["memory and handles"],
        )

    def hold(self) -> memoryview:
        """Prevent the release while the result exists: `with owner.hold():`.

        Errors: what `gone` returns, once it was released.
        """
        hold = memoryview(self._gate)
        if not hold.nbytes:
            raise self.gone()
        return hold

    @property
    def origin(self) -> object:
        """Object for the `source` of a warning, so that tracemalloc reports where this was created.

        It was created together with this object, and does not keep it alive.
        """
        return self._gate

    def use(self) -> Use[Self]:
        """Hold it for the time of a block, at whose end it is released if it was closed meanwhile.

        Errors: as `hold`.
        """
        return Use(self)

    def gone(self) -> Exception:
        """Return the exception to raise when it is used after its release."""
        return HandleStateError("this was released; open or allocate it again")

    def reserve(self) -> None:
        """Prevent holds from now on. Errors: BufferError if there is a hold; nothing has changed then."""
        self._gate.clear()

    def reopen(self) -> None:
        """Permit holds again, after `reserve`. It must not have been released."""
        # A new one: a thread that was refused may still have a view of the old one, which cannot be resized then.
        self._gate = bytearray(1)

    def settle(self) -> bool:
        """Release it, unless there is a hold. Return whether it is released.

        Safe to repeat, also after an exception. Errors: as `give_back`.
        """
        try:
            self._gate.clear()
        except BufferError:
            return False
        self.give_back()
        return True

    def end(self) -> bool:
        """Close it: release it now, or at the end of the last hold. Return whether it is released.

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
        """Call `end`, and log a warning if it fails. Errors: those of signal handlers only."""
        try:
            self.end()
        except (ExtmemError, OSError) as error:
            if raised_by_handler(error):
                raise
            with no_fork():
                import logging  # late, because opening a device does not need it

            # As text: a handler may keep the record, and with it the object and the frames of the error.
            logging.getLogger("extmem").warning(
                "%s could not be released: %s; it is tried again later", repr(self), str(error)
            )

    def give_back(self) -> None:
        """Release it now; the caller ensures that it is not in use. Safe to repeat."""
        raise AssertionError(f"{type(self).__name__} defines give_back")  # pragma: no cover


class Use(Generic[H]):
    """See `Held.use`. Only its `with` statement may refer to it, so that it ends with the statement."""

    __slots__ = ("_held", "_hold")

    def __init__(self, held: H) -> None:
        self._held = held
        self._hold: memoryview | None = held.hold()

    def __enter__(self) -> H:
        return self._held

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # No signal handler runs between the two lines, because there is no call. (The end of the view ends the hold.)
        self._hold = None
        if self._held.closing:
            unsettled[self._held] = 0
            self._held.try_to_end()


class Uses:
    """Holds on several resources, for the time of a block or until `end`; see `Held.use`."""

    __slots__ = ("_holds",)

    def __init__(self, first: Held | None = None) -> None:
        """first: held from now on. Errors: as `Held.hold`."""
        self._holds: dict[Held, memoryview] = {} if first is None else {first: first.hold()}

    def add(self, held: H) -> H:
        """Hold it, unless it is held here already. Return it. Errors: as `Held.hold`."""
        if held not in self._holds:
            self._holds[held] = held.hold()
        return held

    def add_all(self, others: Uses) -> None:
        """Hold everything that `others` hold."""
        for held in list(others._holds):
            self.add(held)

    def end(self, *exception: object) -> None:
        """End all holds; what was closed meanwhile is released. exception: that of a `with` block, which goes on."""
        holds = self._holds
        while holds:
            held = next(iter(holds))
            del holds[held]  # as in `Use`, no signal handler runs before the next line
            if held.closing:
                unsettled[held] = 0
                held.try_to_end()

    def __enter__(self) -> Self:
        return self

    __exit__ = end
