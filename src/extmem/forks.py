"""`no_fork`: a block during which no other thread forks this process, such as a late import or the start of a broker.

How this works. The import system has a lock for each module that a thread imports. In the child of a fork the thread is
gone and the lock stays held, so that the child's own import of this module would wait forever. Therefore a hook delays
a fork until no thread is in such a block, and a block that begins then waits until the fork is over.

A block holds a view of a bytearray of one byte, the gate. The interpreter refuses to empty a bytearray while a view of
it exists, so that emptying it is both the check that there is no block and what later blocks detect. Blocks do not
exclude each other, so that they add nothing to the order of the locks of the import system. A fork does not wait if its
own thread is in a block, and after `_LONGEST_S` it proceeds in any case.

This module is imported with the package. So it imports modules only that the interpreter contains.
"""

from __future__ import annotations

import os
from _thread import RLock, get_ident
from _weakref import ref
from time import monotonic, sleep

__all__ = ["no_fork"]

_LONGEST_S = 30.0
"""Maximum number of seconds that a fork waits."""
_PAUSE_S = 0.0005
_MANY = 64


class _State:
    """The gate, and what belongs to it. There is one in a process."""

    def __init__(self) -> None:
        self.outermost: dict[int, ref[memoryview]] = {}
        """Thread → the view of its outermost block. A dead or released view stays until it is replaced or removed."""
        self.reset()

    def reset(self) -> None:
        """Set the state of a new process, where no fork is in progress."""
        self.gate = bytearray(1)
        """Empty while a fork is in progress."""
        self.forks = RLock()
        """Held by the thread that forks."""

    def is_in_block(self, thread: int) -> bool:
        """Return whether this thread is in a block."""
        reference = self.outermost.get(thread)
        view = None if reference is None else reference()
        try:
            return view is not None and view.nbytes > 0
        except ValueError:  # it was released
            return False

    def enter(self, view: memoryview) -> None:
        """Record the view of a block of this thread."""
        thread = get_ident()
        if not self.is_in_block(thread):
            if len(self.outermost) > _MANY:
                for other in list(self.outermost):
                    if not self.is_in_block(other):
                        self.outermost.pop(other, None)
            self.outermost[thread] = ref(view)

    def before_fork(self) -> None:
        """Wait until no other thread is in a block, and prevent blocks."""
        self.forks.acquire()
        end = monotonic() + _LONGEST_S
        while not self.is_in_block(get_ident()):
            try:
                self.gate.clear()
            except BufferError:
                if monotonic() >= end:
                    return
                sleep(_PAUSE_S)
            else:
                return

    def after_fork(self) -> None:
        """Admit blocks again, in the parent."""
        if not self.gate:
            self.gate = bytearray(1)  # another one, because blocks that wait may have views of the empty one
        self.forks.release()


_state = _State()


def no_fork() -> memoryview:
    """Prevent forks by other threads until the result is released: `with no_fork():`."""
    while True:
        view = memoryview(_state.gate)
        try:
            if view.nbytes:
                _state.enter(view)
                return view
        except BaseException:
            view.release()
            raise
        view.release()
        sleep(_PAUSE_S)


# The first hook of the library: before a fork it is called last, when other hooks have ended the threads that might
# import, and after the fork it is called first, so that other hooks may import.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_state.before_fork, after_in_parent=_state.after_fork, after_in_child=_state.reset)
