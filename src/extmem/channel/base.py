"""`Channel`: what both sides of a channel have."""

from __future__ import annotations

import abc
import os
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self
from weakref import ref

from extmem import _pickles
from extmem.arguments import CheckedWhenMade
from extmem.channel.turns import Turns
from extmem.errors import HandleStateError, UnsupportedError
from extmem.handles.process_id import current_process
from extmem.owning import late_imports

if TYPE_CHECKING:
    from extmem.api.timeline import Timeline
    from extmem.channel.control import ControlPage
    from extmem.channel.info import ChannelInfo

__all__ = ["Channel"]

_channels: Final[dict[int, ref[Channel]]] = {}
"""The channels of this process, by their id. A dead reference stays until another channel has the id."""


class Channel(CheckedWhenMade, abc.ABC):
    """A channel: one name, a ring of slots, one writer, many readers. `extmem.create_channel` returns the side of the
    writer, `extmem.open_channel` that of a reader.

    A slot is never overwritten while anybody holds it. The system holds it (a lock of a file's bytes), so it is free
    again as soon as its holder has ended, however that ended.

    Threads: every method may be called from any thread, also while another one closes the channel. Errors of every
    method: HandleStateError once closed, and in a forked child; ChannelCorruptError if a faulty writer has left numbers
    in the control page that cannot be true.
    """

    _remedy = "create it again by extmem.create_channel"
    """What a program does with one that is closed."""
    _made_by = "extmem.create_channel(…) or extmem.open_channel(…)"

    def __init__(self, name: str, page: ControlPage, frames: Timeline) -> None:
        """page, frames: owned from now on."""
        self._name = name
        self._control = page
        self._frames = frames
        with frames.use() as record:
            self._page: Any = record.page
            """The page of the timeline whose value is the number of the last frame."""
        self._turns = Turns()
        self._pid = current_process.pid
        """The process that may use it; 0 once it is closed, so that each frame needs one look."""
        self._closed = False
        self._ended = False
        """Whether `close` has done everything: after an exception, it can be called again."""
        self._closed_why = ""
        _channels[id(self)] = ref(self)

    @classmethod
    def _is_from_library(cls, given: tuple[Any, ...]) -> bool:
        with late_imports():
            from extmem.channel.control import ControlPage

        return len(given) > 1 and isinstance(given[1], ControlPage)

    def set_closed(self, name: str, why: str) -> None:
        """Make it a channel that could not be received (for the library itself). why: continues a sentence."""
        self._name = name
        self._pid = 0
        self._closed = self._ended = True
        self._closed_why = why

    @property
    def name(self) -> str:
        """The name of the channel."""
        return self._name

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    @property
    def count(self) -> int:
        """The number of the last frame that was published; 0 before the first one."""
        self._check()
        count: int = self._page.value
        return count

    @property
    @abc.abstractmethod
    def info(self) -> ChannelInfo:
        """The writer, the readers and the counts, as they are now."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close it. Safe to call twice."""

    def __enter__(self) -> Self:
        self._check()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __copy__(self) -> NoReturn:
        raise UnsupportedError(
            f"the copy module does not copy a channel ({self._name!r}): open_channel(name) opens another reader, and "
            "pickles are for other processes, which get a reader",
            requires_one_of=["open_channel()"],
        )

    def __deepcopy__(self, memo: dict[int, object]) -> NoReturn:
        self.__copy__()

    def __reduce__(self) -> tuple[Any, ...]:
        return _pickles.reduce_channel(self)

    def _set_closed(self) -> None:
        """Refuse every use from now on."""
        self._closed = True
        self._pid = 0

    def _check(self) -> None:
        """Refuse a channel that is closed, and one of the parent of a forked process."""
        if self._closed:
            raise HandleStateError(f"the channel {self._name!r} is closed{self._closed_why}; {self._remedy}")
        if self._pid != current_process.pid:
            self._control.check_process()

    @property
    def inherited(self) -> bool:
        """Whether it is the channel of the parent of this forked process (for the library itself)."""
        return self._control.pid != current_process.pid

    def refusal(self, text: str) -> HandleStateError:
        """Return the error to raise for a frame that is over (for the library itself).

        text: its message, unless the channel is that of the parent of this process: that is said then.
        """
        try:
            self._control.check_process()
        except HandleStateError as error:
            return error
        return HandleStateError(text)

    def in_forked_child(self) -> None:
        """Let nothing of this copy of the parent's channel change what processes share (for the library itself).

        `close`, and the end of frames and arrays, do nothing then. Another thread may have had the turn at the fork.
        """
        self._turns = Turns()
        self._ended = True
        self._end_frames()

    @abc.abstractmethod
    def _end_frames(self) -> None:
        """Make all frames those that are released, or given up, without any effect outside of this process."""

    @property
    def control(self) -> ControlPage:
        """Its control page (for the library itself)."""
        self._check()
        return self._control

    @property
    def frames_page(self) -> Any:
        """The page of its timeline (for the library itself)."""
        return self._page


def _after_fork() -> None:
    for watch in list(_channels.values()):
        channel = watch()
        if channel is not None and not channel._ended:
            channel.in_forked_child()
    _channels.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
