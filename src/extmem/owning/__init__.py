"""Owners: each owns one resource of the system, and releases it exactly once, never while it is in use.

How this works. A number of the system (a file descriptor, an address, a VkDeviceMemory) identifies a resource until the
resource is released. Afterwards the system may assign the number to another resource. Between the time a number is read
and the time it is used, another thread may run, a signal handler may raise, or the program may lose its last reference
to the object. Four rules ensure that a number is used for its own resource only:

Hold. Code that uses the number holds its owner while it does so: `with owner.hold():`. `settle` releases the resource
only if there is no hold. `end`, which `close()` methods call, first marks the owner as closing; if there is a hold
then, the end of the last hold releases the resource. A hold is a memoryview of the owner's gate, a bytearray of one
byte. The interpreter refuses to resize a bytearray while a view of it exists, and a release empties the gate first. A
view ends with the frame that has it, whatever exception was raised there.

Acquire and record. The result of a call of the system is recorded within that call: `Owner` and `owe` extend a list by
an iterator that makes the call. All of that is C code, so no signal handler runs in between. After an exception of a
handler, the resource is either not acquired, or its release is recorded ("owed").

Release. Each step of a release is removed from the owner and called in one call of C code, so it is made exactly once.

Garbage collection. An owner that the program has lost releases what it owes in the callback of a weak reference, which
is C code too. When such a callback runs, all weak references to the object are already dead. `__del__` runs before
that, so another thread could still reach the object, and with it a number that is being released. Therefore owners have
no `__del__`.

A release that takes more than one call of C code (a message to the broker, CUDA calls in a context) is put into a queue
by that callback. A thread, in which no signal handlers run, makes the releases in the queue (`cleanup_thread`).

Locks of the library are `Lock`, which an exception of a signal handler does not leave held.

What could not be released, because the system refused or an exception interrupted it, stays in `unsettled`, and
`work_off` tries again: with the next allocation or import, and when a device is closed. The end of the process releases
the rest.
"""

from extmem.owning._join_thread import join_thread
from extmem.owning._system import close_native
from extmem.owning.fd import OwnedDescriptor, OwnedFd, copy_fd, late_imports, out_of_descriptors, require_fds
from extmem.owning.held import Held, Use, Uses, unsettled, work_off
from extmem.owning.late_module import LateModule, late_names
from extmem.owning.lock import Lock
from extmem.owning.owner import Making, Owner, Step, do_last, living
from extmem.owning.signal_handlers import raised_by_handler

__all__ = [
    "Held",
    "LateModule",
    "Lock",
    "Making",
    "OwnedDescriptor",
    "OwnedFd",
    "Owner",
    "Step",
    "Use",
    "Uses",
    "close_native",
    "copy_fd",
    "do_last",
    "late_imports",
    "late_names",
    "out_of_descriptors",
    "raised_by_handler",
    "require_fds",
    "join_thread",
    "living",
    "unsettled",
    "work_off",
]
