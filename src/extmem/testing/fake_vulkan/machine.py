"""`FakeVulkan`: the whole fake, from its script to its objects, and the loader that stands in for the real one.

How this works. Each command is a Python function over C arguments in one of the modules beside this one. It is made
into a C function by cffi, so that callers cannot tell it from a driver's: the types of the arguments are checked and
converted, and structs are read through their pointers. `_call` is what each C function runs: it counts, follows the
script, and turns what a command found wrong into a misuse and a VkResult.
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
from extmem.testing.fake_vulkan.things import (
    Buffer,
    CommandBuffer,
    Device,
    Fence,
    Image,
    Instance,
    Memory,
    Pool,
    Queue,
    Share,
    Thing,
)
from extmem.vk.abi import ffi
from extmem.vk.loader import Commands

if TYPE_CHECKING:
    from extmem.testing.faults import Countdown

__all__ = ["FakeLoader", "FakeVulkan", "Misuse", "Refusal"]

T = TypeVar("T", bound=Thing)
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
}
_COUNTED: dict[type[Thing], str] = {
    Instance: "instances",
    Device: "devices",
    Memory: "memory",
    Buffer: "buffers",
    Image: "images",
    Pool: "command pools",
    CommandBuffer: "command buffers",
    Fence: "fences",
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
    """The script's next failure: of the `left`-th call that fits."""

    left: int
    result: int
    command: str | None


@dataclass
class FakeVulkan:
    """A machine with these GPUs and one driver for them. See the package.

    loader_version: VkInstance's version; (1, 0) has no vkEnumerateInstanceVersion. missing: commands that the driver
    does not have. Everything that a test may look at or change while the fake runs is a plain field.
    """

    gpus: Sequence[Gpu] = (Gpu(),)
    manners: Manners = field(default_factory=Manners)
    loader_version: tuple[int, int] = (1, 3)
    missing: frozenset[str] = frozenset()
    misuses: list[Misuse] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    """Every command that was called, in order."""
    bad_imports: list[tuple[int, str]] = field(default_factory=list)
    """Imports of fds and handles that are no payloads: on which VkDevice, and what was wrong."""
    remembers: bool = True
    """Whether `calls`, `shares` and what has ended are kept; they grow with every call."""
    shares: list[Share] = field(default_factory=list)
    """What each export by NT handle was told, on Windows, in order."""
    poisoned_by: int = 0
    """The VkDevice that a bad fd reached, where the manners make that matter; 0 for none."""

    def __post_init__(self) -> None:
        self._things: dict[int, Thing] = {}
        self._ended: dict[int, str] = {}
        self._next = 0xFA4E_0000
        self._entries: dict[str, Any] = {}
        self._plans: list[_Plan] = []
        self._countdowns: list[tuple[Countdown, int]] = []
        self._lock = threading.RLock()
        self._running = ""

    # The script.

    def fail(self, at: int = 1, result: int = Result.ERROR_OUT_OF_DEVICE_MEMORY, *, command: str | None = None) -> None:
        """Let the `at`-th call from now on fail, of that command or of any. Only calls that can fail count.

        With VK_ERROR_DEVICE_LOST the device of that call is lost for good.
        """
        self._plans.append(_Plan(at, int(result), command))

    @contextlib.contextmanager
    def failing(self, countdown: Countdown, result: int = Result.ERROR_OUT_OF_DEVICE_MEMORY) -> Iterator[Countdown]:
        """An arm for `faults.fail_each`: the call whose turn it is returns this, and does nothing."""
        entry = (countdown, int(result))
        self._countdowns.append(entry)
        try:
            yield countdown
        finally:
            self._countdowns.remove(entry)

    def lose_device(self) -> None:
        """Every VkDevice that there is now is lost: whatever can fail on it returns VK_ERROR_DEVICE_LOST."""
        for device in self.living(Device):
            device.lost = True

    def _scripted(self, name: str, device: Device | None) -> int:
        result = 0
        for countdown, told in self._countdowns:
            if countdown.due(name):
                result = told
        for plan in self._plans:
            if plan.command in (None, name):
                plan.left -= 1
                if plan.left == 0:
                    result = plan.result
        self._plans = [plan for plan in self._plans if plan.left > 0]
        if result == _LOST and device is not None:
            device.lost = True
        return _LOST if device is not None and device.lost else result

    # What there is.

    def living(self, kind: type[T]) -> list[T]:
        """Every living object of a kind."""
        return [thing for thing in self._things.values() if isinstance(thing, kind)]

    def alive(self) -> Counter[str]:
        """How many of each kind live, and the bytes of device memory. Empty when everything was given back."""
        found = Counter(_COUNTED[type(t)] for t in self._things.values() if type(t) in _COUNTED)
        octets = sum(memory.size for memory in self.living(Memory))
        return found + Counter({"bytes of device memory": octets})

    def misuse(self, problem: str) -> None:
        """Note what the specification forbids."""
        self.misuses.append(Misuse(self._running, problem))

    def add(self, thing: T) -> int:
        """A new object lives; its handle."""
        self._next += 16
        thing.number = self._next
        self._things[thing.number] = thing
        return thing.number

    def end(self, thing: Thing) -> None:
        """An object ends, with a word about what it left behind."""
        busy = [c for c in self.living(CommandBuffer) if c.state == "pending" and (thing in c.uses or thing is c)]
        if busy and not self._device_lost(thing):
            self.misuse(f"{thing} is destroyed while {busy[0]}, which uses it, may still run")
        del self._things[thing.number]
        if self.remembers:
            self._ended[thing.number] = str(thing)

    def children(self, thing: Thing) -> list[Thing]:
        """What lives on it."""
        return [child for child in self._things.values() if child.parent is thing]

    def get(self, handle: Any, kind: type[T], parent: Thing | None = None) -> T:
        """The living object behind a handle. Notes a misuse and ends the command where there is none."""
        number = int(ffi.cast("uintptr_t", handle)) if isinstance(handle, ffi.CData) else int(handle)
        found = self._things.get(number)
        if not isinstance(found, kind):
            was = f", {self._ended[number]} that was destroyed" if number in self._ended else ""
            self.misuse(f"{number:#x} is no {kind.__name__}{was}")
            raise Refusal(_UNKNOWN)
        if parent is not None and found.parent is not parent:
            self.misuse(f"{found} belongs to {found.parent}, not to {parent}")
            raise Refusal(_UNKNOWN)
        return found

    def wrong(self, problem: str, result: int = _UNKNOWN) -> Refusal:
        """Note a misuse; what to raise, as `raise fake.wrong(…)`."""
        self.misuse(problem)
        return Refusal(result)

    def _device_lost(self, thing: Thing | None) -> bool:
        while thing is not None and not isinstance(thing, Device):
            thing = thing.parent
        return thing is not None and thing.lost

    def _device_of(self, handle: Any) -> Device | None:
        found = self._things.get(int(ffi.cast("uintptr_t", handle))) if isinstance(handle, ffi.CData) else None
        if isinstance(found, CommandBuffer):
            found = found.parent.parent
        elif isinstance(found, Queue):
            found = found.parent
        return found if isinstance(found, Device) else None

    # As C functions.

    def entry(self, name: str) -> Any:
        """A command as a C function; NULL for one that there is not."""
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
        """vkGetDeviceProcAddr: NULL also for what needs an extension that the device was made without."""
        needed = _NEEDS.get(name)
        return ffi.NULL if needed is not None and needed not in device.extensions else self.entry(name)

    def _call(self, name: str, function: Callable[..., Any], fails: bool, *arguments: Any) -> Any:
        with self._lock:
            before, self._running = self._running, name
            if self.remembers:
                self.calls.append(name)
            try:
                if fails:
                    told = self._scripted(name, self._device_of(arguments[0]))
                    if told:
                        return told
                return function(self, *arguments)
            except Refusal as refusal:
                return refusal.result if fails else None
            except Exception as error:  # noqa: BLE001  # nothing may be raised into C; a test sees the misuse
                self.misuse(f"the fake itself failed: {type(error).__name__}: {error}")
                return _UNKNOWN if fails else None
            finally:
                self._running = before

    @property
    def loader(self) -> FakeLoader:
        """What stands in for `extmem.vk.loader.Loader`."""
        return FakeLoader(self)


class FakeLoader:
    """`extmem.vk.loader.Loader` over a fake: no library is loaded."""

    handles_are_addresses = False
    """They are numbers, which the fake looks up."""

    def __init__(self, fake: FakeVulkan) -> None:
        self.fake = fake
        self.commands = Commands(fake.entry, "the Vulkan loader")
        """What can be called without an instance."""

    def instance_commands(self, instance: Any) -> Commands:
        """Commands of a VkInstance and its physical devices."""
        return Commands(self.fake.entry, "this Vulkan instance")

    def device_commands(self, instance_commands: Commands, device: Any, owner: str) -> Commands:
        """Commands of a VkDevice."""
        try:
            found = self.fake.get(device, Device)
        except Refusal:  # a misuse, which is noted; a driver would read what is at that address
            return Commands(lambda name: ffi.NULL, owner)
        return Commands(lambda name: self.fake.device_entry(found, name), owner)


@functools.cache
def _commands() -> dict[str, Callable[..., Any]]:
    from extmem.testing.fake_vulkan import (
        answers,
        devices,
        instances,
        memories,
        modifiers,
        queues,
        recording,
        resources,
    )
    from extmem.testing.fake_vulkan._system import sharing

    modules = (instances, answers, modifiers, devices, memories, sharing(), resources, queues, recording)
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if name.startswith("vk") and name != "vk"
    }
