"""Owners: each owns one thing of the system, gives it back exactly once, and never while somebody uses it.

How this works. A number of the system (a file descriptor, an address, a VkDeviceMemory) stands for a thing until that
is given back. Afterwards the system gives the number to another thing. Between reading a number and using it, another
thread may run, a signal handler may raise, or the program may lose the object. Four rules keep each number with its
thing:

Hold. Whoever uses the number holds its owner meanwhile: `with owner.hold():`. `settle` gives the thing back only if
nobody holds it. `end`, which `close()` methods call, first marks the owner as closing: if somebody holds it then, the
last who lets go gives it back. A hold is a memoryview of the owner's gate, a bytearray of one byte. The interpreter
refuses to resize a bytearray while a view of it exists, and giving back empties the gate first. A view ends with the
frame that has it, whatever was raised there.

Take and record. What a call of the system returns is recorded within that call: `acquire` and `owe` extend a list by an
iterator that makes the call. All of that is C code, so no signal handler runs in between. After the exception of a
handler the thing is either not taken, or owed.

Give back. A step of giving back is taken from the owner and called in one call of C code: it is made once, and never
forgotten.

Lose. An owner that is lost gives back what it owes in the callback of a weak reference, which is C code as well. When
such a callback runs, all weak references to the object are dead already. `__del__` runs before that, so another thread
could still reach the object, and with it a number that is being given back. Therefore owners have no `__del__`.

What takes more than one call of C code to give back (a message to the broker, CUDA calls in a context) is put into a
queue by that callback, and a thread that no signal handler interrupts works the queue off (`soon`).

Locks of the library are `Lock`: no exception of a signal handler leaves one held.

What could not be given back, because the system refused or an exception came in between, stays in `unsettled`, and
`work_off` tries again: with the next allocation or import, and when a device is closed. The end of the process gives
back the rest.
"""

from extmem.owning._join_thread import join_thread
from extmem.owning._system import close_native
from extmem.owning.fd import OwnedDescriptor, OwnedFd, copy_fd, late_imports, out_of_descriptors
from extmem.owning.held import Held, Use, Uses, unsettled, work_off
from extmem.owning.lock import Lock
from extmem.owning.owner import Making, Owner, Step, do_last, living
from extmem.owning.signal_handlers import raised_by_handler

__all__ = [
    "Held",
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
    "out_of_descriptors",
    "raised_by_handler",
    "join_thread",
    "living",
    "unsettled",
    "work_off",
]
