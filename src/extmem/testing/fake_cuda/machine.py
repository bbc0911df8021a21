"""`FakeCuda`: the whole fake, from its script to its objects.

How this works. `module` replaces `cuda.bindings.driver`: structs, enums and handle types are the real ones, so that
fields of wrong types raise; the functions that the CUDA device calls are those of the other modules of this package,
and there are no others. Each call runs `run`, which counts it, follows the script, and turns what the function reports
as wrong into a misuse and a CUresult.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from extmem.testing.fake_cuda.objects import (
    Context,
    Event,
    ExternalMemory,
    ExternalSemaphore,
    FakeObject,
    Gpu,
    Graph,
    Mapped,
    Physical,
    Pinned,
    Reserved,
    Stream,
)

if TYPE_CHECKING:
    from collections import deque

    from extmem.testing.fake_cuda.streams import Step
    from extmem.testing.fake_vulkan.sync_pages import SyncPage
    from extmem.testing.faults import Countdown

__all__ = ["FakeCuda", "Misuse", "Refusal"]

T = TypeVar("T", bound=FakeObject)
INVALID_VALUE, OUT_OF_MEMORY, NOT_INITIALIZED, NO_DEVICE, INVALID_CONTEXT = 1, 2, 3, 100, 201
_CANNOT_FAIL = frozenset(
    {
        "cuCtxPopCurrent",
        "cuDestroyExternalMemory",
        "cuDestroyExternalSemaphore",
        "cuDevicePrimaryCtxRelease",
        "cuEventDestroy",
        "cuEventQuery",
        "cuGraphDestroy",
        "cuGraphExecDestroy",
        "cuMemAddressFree",
        "cuMemFree",
        "cuMemFreeHost",
        "cuMemHostUnregister",
        "cuMemRelease",
        "cuMemUnmap",
        "cuMipmappedArrayDestroy",
        "cuStreamDestroy",
    }
)
"""Functions that release something, or tell whether it can be: the script makes none of them fail."""
_COUNTED: dict[type[FakeObject], str] = {
    ExternalMemory: "external memories",
    Mapped: "mapped buffers and arrays",
    Physical: "allocations",
    Reserved: "address ranges",
    Pinned: "registrations",
    ExternalSemaphore: "external semaphores",
    Stream: "streams",
    Event: "events",
    Graph: "graphs",
}


class Refusal(Exception):
    """A function ends with this CUresult. Never leaves the fake."""

    def __init__(self, result: int) -> None:
        super().__init__(f"CUresult {result}")
        self.result = result


@dataclass(frozen=True, slots=True)
class Misuse:
    """Something that the CUDA driver API forbids, and that the real driver need not notice."""

    command: str
    problem: str

    def __str__(self) -> str:
        return f"{self.command}: {self.problem}"


@dataclass(slots=True)
class _Plan:
    left: int
    result: int
    command: str | None


@dataclass
class FakeCuda:
    """A machine with these GPUs and NVIDIA's driver for them. See the package.

    missing: functions that the driver lacks (calling one raises RuntimeError, as cuda-bindings does). Everything that
    a test may read or change while the fake runs is a plain field.
    """

    gpus: Sequence[Gpu] = (Gpu(),)
    missing: frozenset[str] = frozenset()
    misuses: list[Misuse] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    """Every function that was called, in order."""
    imports: list[dict[str, Any]] = field(default_factory=list)
    """The parameters of each cuImportExternalMemory: type, size, flags."""
    slow_copies: int = 0
    """How often an asynchronous copy is looked at until it is done."""
    stray_pointers: bool = False
    """The attributes of mapped buffers have another context than the one that they were mapped in."""
    short_ranges: bool = False
    """cuMemGetAddressRange returns fewer bytes than were mapped."""
    whole_ranges: tuple[int, int] | None = None
    """Address and size of a range that cuMemGetAddressRange returns as one, whatever is mapped in it."""
    security: list[str] = field(default_factory=list)
    """The security descriptors of the last shared allocations, as SDDL (Windows)."""
    semaphore_imports: list[int] = field(default_factory=list)
    """The type (CUexternalSemaphoreHandleType) of each cuImportExternalSemaphore."""
    capturing: set[int] = field(default_factory=set)
    """Streams that are being captured into a graph."""
    win32_semaphores: dict[int | str, SyncPage] = field(default_factory=dict)
    """Semaphores that can be imported by handle, number or name, as Windows's drivers and Direct3D share them."""

    def __post_init__(self) -> None:
        self.contexts = [Context(ordinal) for ordinal in range(len(self.gpus))]
        self.objects: dict[int, FakeObject] = {}
        self._next = 0x10_0000
        self._plans: list[_Plan] = []
        self._countdowns: list[tuple[Countdown, int]] = []
        self.lock = threading.RLock()
        self._changed = threading.Condition(self.lock)
        self.queues: dict[int, deque[Step]] = {}
        """What each stream has still to execute, by its number."""
        self.pump: threading.Thread | None = None
        """The thread that executes what waits for other processes."""
        self._stacks = threading.local()
        self._running = ""
        self.initialized = False
        self.callbacks: dict[str, Any] = {}
        """Functions whose addresses were returned, which keeps them alive."""

    # The script.

    def fail(self, at: int = 1, result: int = OUT_OF_MEMORY, *, command: str | None = None) -> None:
        """Make the `at`-th call from now on fail, of that function or of any that does not release something."""
        self._plans.append(_Plan(at, int(result), command))

    @contextlib.contextmanager
    def failing(self, countdown: Countdown, result: int = OUT_OF_MEMORY) -> Iterator[Countdown]:
        """An arm for `faults.fail_each`: the countdown's n-th call returns this result, and does nothing."""
        entry = (countdown, int(result))
        self._countdowns.append(entry)
        try:
            yield countdown
        finally:
            self._countdowns.remove(entry)

    def _scripted(self, name: str) -> int:
        result = 0
        for countdown, failure in self._countdowns:
            if name not in _CANNOT_FAIL and countdown.due(name):
                result = failure
        for plan in self._plans:
            if plan.command == name or (plan.command is None and name not in _CANNOT_FAIL):
                plan.left -= 1
                if plan.left == 0:
                    result = plan.result
        self._plans = [plan for plan in self._plans if plan.left > 0]
        return result

    # The living objects.

    def living(self, kind: type[T]) -> list[T]:
        """Return every living object of a class."""
        return [item for item in self.objects.values() if isinstance(item, kind)]

    def alive(self) -> Counter[str]:
        """Count the living objects of each class, and the retained contexts. Empty if everything was released."""
        found = Counter(_COUNTED[type(item)] for item in self.objects.values())
        return found + Counter({"retained contexts": sum(context.retained for context in self.contexts)})

    def add(self, item: T) -> int:
        """Add a new object and return its handle."""
        self._next += 16
        item.number = self._next
        self.objects[item.number] = item
        return item.number

    def get(self, handle: Any, kind: type[T]) -> T:
        """Return the living object of a handle. Where there is none, record a misuse and end the call."""
        found = self.objects.get(int(handle))
        if not isinstance(found, kind):
            raise self.wrong(f"{int(handle):#x} is not a living {kind.__name__}")
        return found

    def end(self, item: FakeObject) -> None:
        """Remove an object."""
        del self.objects[item.number]

    def wrong(self, problem: str, result: int = INVALID_VALUE) -> Refusal:
        """Record a misuse and return the exception that ends the call: `raise fake.wrong(…)`."""
        self.misuses.append(Misuse(self._running, problem))
        return Refusal(result)

    def pinned_at(self, address: int, size: int) -> Pinned | None:
        """Return the pinned memory that all of these bytes are in."""
        for pinned in self.living(Pinned):
            if pinned.address <= address and address + size <= pinned.address + pinned.size:
                return pinned
        return None

    def pause(self, seconds: float) -> None:
        """Let other threads call the fake for a moment, within a call that waits."""
        self._changed.wait(seconds)

    # Contexts.

    @property
    def stack(self) -> list[int]:
        """This thread's stack of contexts, by ordinal; the last is current."""
        if not hasattr(self._stacks, "contexts"):
            self._stacks.contexts = []
        stack: list[int] = self._stacks.contexts
        return stack

    def current(self) -> Context:
        """Return the current context; a misuse where there is none."""
        if not self.stack:
            raise self.wrong("no context is current", INVALID_CONTEXT)
        context = self.contexts[self.stack[-1]]
        if not context.retained:
            raise self.wrong(f"the current context, of device {context.ordinal}, is not retained", INVALID_CONTEXT)
        return context

    # The replacement of cuda.bindings.driver.

    @functools.cached_property
    def module(self) -> Any:
        """The replacement of `cuda.bindings.driver`."""
        return _Module(self)

    def run(self, name: str, function: Callable[..., Any], *arguments: Any) -> tuple[Any, ...]:
        """Run one call and return (CUresult, values …), as cuda-bindings does."""
        with self.lock:
            before, self._running = self._running, name
            self.calls.append(name)
            results = self.module.CUresult
            count = _VALUES.get(name, 0)
            try:
                failure = self._scripted(name)
                if failure:
                    raise Refusal(failure)
                if not self.initialized and name != "cuInit":
                    raise self.wrong("cuInit was not called", NOT_INITIALIZED)
                values = function(self, *arguments)
            except Refusal as refusal:
                return (results(refusal.result), *[None] * count)
            finally:
                self._running = before
            return (results.CUDA_SUCCESS, *(values if values is not None else ()))


class _Module:
    """`cuda.bindings.driver`, with the fake's functions in place of the driver's."""

    def __init__(self, fake: FakeCuda) -> None:
        from cuda.bindings import driver

        self._real = driver
        self._fake = fake

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cu"):
            value = getattr(self._real, name)
        elif name in self._fake.missing or name not in _functions():
            value = functools.partial(_absent, name)
        else:
            value = functools.partial(self._fake.run, name, _functions()[name])
        setattr(self, name, value)
        return value


def _absent(name: str, *arguments: Any) -> Any:
    raise RuntimeError(f'Function "{name}" not found')


_VALUES = {
    "cuDeviceGet": 1,
    "cuDeviceGetAttribute": 1,
    "cuDeviceGetCount": 1,
    "cuDeviceGetLuid": 2,
    "cuDeviceGetName": 1,
    "cuDeviceGetUuid": 1,
    "cuDevicePrimaryCtxRetain": 1,
    "cuDeviceTotalMem": 1,
    "cuDriverGetVersion": 1,
    "cuCtxGetCurrent": 1,
    "cuCtxPopCurrent": 1,
    "cuEventCreate": 1,
    "cuExternalMemoryGetMappedBuffer": 1,
    "cuExternalMemoryGetMappedMipmappedArray": 1,
    "cuGraphAddBatchMemOpNode": 1,
    "cuGraphAddExternalSemaphoresSignalNode": 1,
    "cuGraphAddExternalSemaphoresWaitNode": 1,
    "cuGraphAddHostNode": 1,
    "cuGraphCreate": 1,
    "cuGraphInstantiate": 1,
    "cuImportExternalMemory": 1,
    "cuImportExternalSemaphore": 1,
    "cuGetProcAddress": 2,
    "cuMemAddressReserve": 1,
    "cuMemCreate": 1,
    "cuMemExportToShareableHandle": 1,
    "cuMemGetAddressRange": 2,
    "cuMemGetAllocationGranularity": 1,
    "cuMemGetAllocationPropertiesFromHandle": 1,
    "cuMemHostAlloc": 1,
    "cuMemHostGetDevicePointer": 1,
    "cuMemImportFromShareableHandle": 1,
    "cuMemRetainAllocationHandle": 1,
    "cuPointerGetAttribute": 1,
    "cuPointerGetAttributes": 1,
    "cuStreamCreate": 1,
}
"""The number of values that each function returns after its CUresult; 0 for functions that are not listed."""


@functools.cache
def _functions() -> dict[str, Callable[..., Any]]:
    from extmem.testing.fake_cuda import (
        addresses,
        copying,
        devices,
        external,
        graphs,
        semaphores,
        streams,
        virtual,
    )

    return {
        name: value
        for module in (addresses, devices, virtual, external, copying, semaphores, streams, graphs)
        for name, value in vars(module).items()
        if name.startswith("cu") and callable(value)
    }
