"""`FakeVulkan`: the whole fake, from its script to its objects, and the loader that replaces the real one.

How this works. Each command is a Python function of C arguments in one of the other modules of this package. cffi makes
it a C function, which is called like a driver's: the types of the arguments are checked and converted, and structs are
read through their pointers. Each C function runs `_call`, which counts the call, follows the script, and turns what the
command reports as wrong into a misuse and a VkResult.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from extmem import vk
from extmem.testing.fake_vulkan.gpus import Gpu, Manners
from extmem.testing.fake_vulkan.objects import (
    Buffer,
    CommandBuffer,
    Device,
    FakeObject,
    Fence,
    Image,
    Instance,
    Memory,
    Pool,
    Queue,
    Semaphore,
    Share,
)
from extmem.vk.abi import ffi
from extmem.vk.loader import Commands

if TYPE_CHECKING:
    from extmem.testing.faults import Countdown

__all__ = ["FakeLoader", "FakeVulkan", "Misuse", "Refusal"]

T = TypeVar("T", bound=FakeObject)
Result = vk.Result
_UNKNOWN = int(Result.ERROR_UNKNOWN)
_LOST = int(Result.ERROR_DEVICE_LOST)
_NEEDS = {
    "vkGetMemoryFdKHR": "VK_KHR_external_memory_fd",
    "vkGetMemoryFdPropertiesKHR": "VK_KHR_external_memory_fd",
    "vkGetImageDrmFormatModifierPropertiesEXT": "VK_EXT_image_drm_format_modifier",
    "vkGetMemoryHostPointerPropertiesEXT": "VK_EXT_external_memory_host",
    "vkGetMemoryWin32HandleKHR": "VK_KHR_external_memory_win32",
    "vkGetMemoryWin32HandlePropertiesKHR": "VK_KHR_external_memory_win32",
    "vkGetSemaphoreFdKHR": "VK_KHR_external_semaphore_fd",
    "vkImportSemaphoreFdKHR": "VK_KHR_external_semaphore_fd",
    "vkGetFenceFdKHR": "VK_KHR_external_fence_fd",
    "vkImportFenceFdKHR": "VK_KHR_external_fence_fd",
    "vkGetSemaphoreCounterValue": "VK_KHR_timeline_semaphore",
    "vkWaitSemaphores": "VK_KHR_timeline_semaphore",
    "vkSignalSemaphore": "VK_KHR_timeline_semaphore",
    "vkQueueSubmit2": "VK_KHR_synchronization2",
}
_PROMOTED = ("vkGetSemaphoreCounterValue", "vkWaitSemaphores", "vkSignalSemaphore", "vkQueueSubmit2")
"""Commands that the driver also has under the name of their extension, which ends with KHR."""
_COUNTED: dict[type[FakeObject], str] = {
    Instance: "instances",
    Device: "devices",
    Memory: "memory",
    Buffer: "buffers",
    Image: "images",
    Pool: "command pools",
    CommandBuffer: "command buffers",
    Fence: "fences",
    Semaphore: "semaphores",
}


class Refusal(Exception):
    """A command ends with this VkResult. Never leaves the fake."""

    def __init__(self, result: int) -> None:
        super().__init__(f"VkResult {int(result)}")
        self.result = int(result)


@dataclass(frozen=True, slots=True)
class Misuse:
    """Something that the specification forbids, and that a real driver need not notice."""

    command: str
    problem: str

    def __str__(self) -> str:
        return f"{self.command}: {self.problem}"


@dataclass(slots=True)
class _Plan:
    """A failure of the script.

    left: it happens at the `left`-th matching call. command: the matching command; None for any.
    """

    left: int
    result: int
    command: str | None


@dataclass
class FakeVulkan:
    """A machine with these GPUs and one driver for them. See the package.

    loader_version: VkInstance's version; (1, 0) has no vkEnumerateInstanceVersion. missing: commands that the driver
    does not have. Everything that a test may read or change while the fake runs is a plain field.
    """

    gpus: Sequence[Gpu] = (Gpu(),)
    manners: Manners = field(default_factory=Manners)
    loader_version: tuple[int, int] = (1, 3)
    missing: frozenset[str] = frozenset()
    misuses: list[Misuse] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    """Every command that was called, in order."""
    bad_imports: list[tuple[int, str]] = field(default_factory=list)
    """Imports of fds and handles that are not payloads: the VkDevice, and what was wrong."""
    remembers: bool = True
    """Whether `calls`, `shares` and the destroyed objects are recorded, which grow with every call."""
    shares: list[Share] = field(default_factory=list)
    """The parameters of each export by NT handle (on Windows), in order."""
    poisoned_by: int = 0
    """The VkDevice that imported a bad fd, with `Manners.bad_fd_poisons`; 0 for none."""
    semaphores_poisoned_by: int = 0
    """The same for semaphores, with `Manners.bad_semaphore_fd_poisons`."""
    pump: threading.Thread | None = None
    """The thread that runs batches which wait; None while there are none."""

    def __post_init__(self) -> None:
        self._objects: dict[int, FakeObject] = {}
        self._ended: dict[int, str] = {}
        self._next = 0xFA4E_0000
        self._entries: dict[str, Any] = {}
        self._plans: list[_Plan] = []
        self._countdowns: list[tuple[Countdown, int]] = []
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._running = ""

    # The script.

    def fail(self, at: int = 1, result: int = Result.ERROR_OUT_OF_DEVICE_MEMORY, *, command: str | None = None) -> None:
        """Make the `at`-th call from now on fail, of that command or of any. Only commands that can fail count.

        After VK_ERROR_DEVICE_LOST the device of that call stays lost.
        """
        self._plans.append(_Plan(at, int(result), command))

    @contextlib.contextmanager
    def failing(self, countdown: Countdown, result: int = Result.ERROR_OUT_OF_DEVICE_MEMORY) -> Iterator[Countdown]:
        """An arm for `faults.fail_each`: the countdown's n-th call returns this result, and does nothing."""
        entry = (countdown, int(result))
        self._countdowns.append(entry)
        try:
            yield countdown
        finally:
            self._countdowns.remove(entry)

    def lose_device(self) -> None:
        """Lose every existing VkDevice: each command on it that can fail returns VK_ERROR_DEVICE_LOST."""
        for device in self.living(Device):
            device.lost = True

    def _scripted(self, name: str, device: Device | None) -> int:
        result = 0
        for countdown, failure in self._countdowns:
            if countdown.due(name):
                result = failure
        for plan in self._plans:
            if plan.command in (None, name):
                plan.left -= 1
                if plan.left == 0:
                    result = plan.result
        self._plans = [plan for plan in self._plans if plan.left > 0]
        if result == _LOST and device is not None:
            device.lost = True
        return _LOST if device is not None and device.lost else result

    # The living objects.

    def living(self, kind: type[T]) -> list[T]:
        """Return every living object of a class."""
        return [item for item in self._objects.values() if isinstance(item, kind)]

    def alive(self) -> Counter[str]:
        """Count the living objects of each class, and the bytes of device memory. Empty if everything was released."""
        found = Counter(_COUNTED[type(t)] for t in self._objects.values() if type(t) in _COUNTED)
        octets = sum(memory.size for memory in self.living(Memory))
        return found + Counter({"bytes of device memory": octets})

    def misuse(self, problem: str) -> None:
        """Record something that the specification forbids."""
        self.misuses.append(Misuse(self._running, problem))

    def add(self, item: T) -> int:
        """Add a new object and return its handle."""
        self._next += 16
        item.number = self._next
        self._objects[item.number] = item
        return item.number

    def end(self, item: FakeObject) -> None:
        """Remove an object; a misuse if pending work uses it."""
        busy = [c for c in self.living(CommandBuffer) if c.state == "pending" and (item in c.uses or item is c)]
        if busy and not self._device_lost(item):
            self.misuse(f"{item} is destroyed while {busy[0]}, which uses it, may still run")
        del self._objects[item.number]
        if self.remembers:
            self._ended[item.number] = str(item)

    def children(self, item: FakeObject) -> list[FakeObject]:
        """Return the living objects whose parent it is."""
        return [child for child in self._objects.values() if child.parent is item]

    def get(self, handle: Any, kind: type[T], parent: FakeObject | None = None) -> T:
        """Return the living object of a handle. Where there is none, record a misuse and end the command."""
        number = int(ffi.cast("uintptr_t", handle)) if isinstance(handle, ffi.CData) else int(handle)
        found = self._objects.get(number)
        if not isinstance(found, kind):
            was = f", {self._ended[number]} that was destroyed" if number in self._ended else ""
            self.misuse(f"{number:#x} is not a {kind.__name__}{was}")
            raise Refusal(_UNKNOWN)
        if parent is not None and found.parent is not parent:
            self.misuse(f"{found} belongs to {found.parent}, not to {parent}")
            raise Refusal(_UNKNOWN)
        return found

    def wrong(self, problem: str, result: int = _UNKNOWN) -> Refusal:
        """Record a misuse and return the exception that ends the command: `raise fake.wrong(…)`."""
        self.misuse(problem)
        return Refusal(result)

    def _device_lost(self, item: FakeObject | None) -> bool:
        while item is not None and not isinstance(item, Device):
            item = item.parent
        return item is not None and item.lost

    def _device_of(self, handle: Any) -> Device | None:
        found = self._objects.get(int(ffi.cast("uintptr_t", handle))) if isinstance(handle, ffi.CData) else None
        if isinstance(found, CommandBuffer):
            found = found.parent.parent
        elif isinstance(found, Queue):
            found = found.parent
        return found if isinstance(found, Device) else None

    # Waits.

    @contextlib.contextmanager
    def locked(self, command: str) -> Iterator[None]:
        """Within the block no command runs. command: the command that a misuse is recorded for."""
        with self._lock:
            before, self._running = self._running, command
            try:
                yield
            finally:
                self._running = before

    def wait_for_change(self, seconds: float) -> None:
        """Let commands of other threads run, until one changes something, or this time has passed."""
        command = self._running
        self._changed.wait(seconds)
        self._running = command

    def tell_change(self) -> None:
        """Wake the threads in `wait_for_change`."""
        self._changed.notify_all()

    def run_recorded(self, work: list[Callable[[], None]]) -> None:
        """Run what was recorded to a command buffer. What it does wrong is a misuse."""
        for one in work:
            try:
                one()
            except Refusal:
                return

    # As C functions.

    def entry(self, name: str) -> Any:
        """Return a command as a C function; NULL for a command that does not exist."""
        if name.removesuffix("KHR") in _PROMOTED:
            name = name.removesuffix("KHR")
        if name in self.missing:
            return ffi.NULL
        known = self._entries.get(name)
        if known is None:
            function = _commands().get(name)
            if function is None:
                return ffi.NULL
            fails = ffi.typeof(f"PFN_{name}").result.cname == "int32_t"
            run = functools.partial(self._call, name, function, fails)
            known = self._entries[name] = ffi.callback(f"PFN_{name}", run, _UNKNOWN if fails else None)
        return ffi.cast("PFN_vkVoidFunction", known)

    def device_entry(self, device: Device, name: str) -> Any:
        """vkGetDeviceProcAddr: NULL also for a command of an extension that the device was created without."""
        needed = _NEEDS.get(name.removesuffix("KHR") if name.removesuffix("KHR") in _PROMOTED else name)
        return ffi.NULL if needed is not None and needed not in device.extensions else self.entry(name)

    def _call(self, name: str, function: Callable[..., Any], fails: bool, *arguments: Any) -> Any:
        with self._lock:
            before, self._running = self._running, name
            if self.remembers:
                self.calls.append(name)
            try:
                if fails:
                    failure = self._scripted(name, self._device_of(arguments[0]))
                    if failure:
                        return failure
                return function(self, *arguments)
            except Refusal as refusal:
                return refusal.result if fails else None
            except Exception as error:  # noqa: BLE001  # nothing may be raised into C; the test gets the misuse
                self.misuse(f"the fake itself failed: {type(error).__name__}: {error}")
                return _UNKNOWN if fails else None
            finally:
                self._running = before

    @property
    def loader(self) -> FakeLoader:
        """The replacement of `extmem.vk.loader.Loader`."""
        return FakeLoader(self)


class FakeLoader:
    """A replacement of `extmem.vk.loader.Loader` with a fake's commands: no library is loaded."""

    handles_are_addresses = False
    """Handles are numbers that the fake looks up."""

    def __init__(self, fake: FakeVulkan) -> None:
        self.fake = fake
        self.commands = Commands(fake.entry, "the Vulkan loader")
        """The commands that need no instance."""

    def instance_commands(self, instance: Any) -> Commands:
        """Return the commands of a VkInstance and its physical devices."""
        return Commands(self.fake.entry, "this Vulkan instance")

    def device_commands(self, instance_commands: Commands, device: Any, owner: str) -> Commands:
        """Return the commands of a VkDevice."""
        try:
            found = self.fake.get(device, Device)
        except Refusal:  # the misuse is recorded; a driver would read from that address
            return Commands(lambda name: ffi.NULL, owner)
        return Commands(lambda name: self.fake.device_entry(found, name), owner)


@functools.cache
def _commands() -> dict[str, Callable[..., Any]]:
    from extmem.testing.fake_vulkan import (
        capabilities,
        devices,
        instances,
        memories,
        modifiers,
        queues,
        recording,
        resources,
        semaphores,
    )
    from extmem.testing.fake_vulkan._system import sharing, sync_sharing

    shared = (sharing(), semaphores, *sync_sharing())
    modules = (instances, capabilities, modifiers, devices, memories, *shared, resources, queues, recording)
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if name.startswith("vk") and name != "vk"
    }
