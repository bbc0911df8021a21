"""Run programs on a Vulkan device: `python -m tests.arbitrary.running [HOLE]`.

How this works. Each line of stdin is a program (see `programs`); each line of stdout is a JSON list with an entry for
each call: its name and `ran`, `refused` (an error that a call may raise), `missing` (what it needs was not made) or
`escaped` (another error). After each program a marker is written between the messages of the validation layer, where
that is enabled. All programs use one device; what a program makes is closed at its end.

What was opened for reading must be unchanged at the end; otherwise the program has another entry, `kept`, with the
outcome `escaped`.

HOLE is a check that is removed: `module:name`, such as `extmem.rules:check_create_buffer`, or `module:Class.name`. It
is replaced by a function that returns None.
"""

from __future__ import annotations

import enum
import faulthandler
import functools
import importlib
import json
import os
import re
import resource as limits
import sys
import traceback
import typing
from collections.abc import Callable
from typing import Any, TypeAlias

import extmem
from extmem import vk
from extmem.api import Buffer, Device, DeviceMemory, Image
from extmem.api.commands import Commands
from tests.arbitrary import hostile
from tests.arbitrary.programs import Program, Step
from tests.arbitrary.values import CLASS, Value, hints
from tests.layer import collector

__all__ = ["main"]

Outcome: TypeAlias = tuple[str, str, str]
"""The call, its outcome, and the text of the error."""
ALLOWED = (extmem.ExtmemError, ValueError, TypeError)
"""The errors that a call may raise."""
_MEMORY = 16 << 30
"""The size of the address space that the process may have: a wrong size must not exhaust the machine."""
FD = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD


class Odd:
    """A value in place of an index that cannot be converted."""

    def __index__(self) -> int:
        raise TypeError("this is not an index")


class MissingError(Exception):
    """An object that a call needs was not made."""


class Run:
    """The run of one program."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.objects: dict[str, Any] = {}
        self.given: dict[str, Any] = {}
        """The structs that objects were made from, which belong to the caller."""
        self.views: list[memoryview] = []
        self.outcomes: list[Outcome] = []
        self.named_memory: dict[str, DeviceMemory] = {}
        """By name, memory that others may open."""
        self.kept: dict[str, tuple[DeviceMemory, bytes]] = {}
        """Memory that was opened for reading, and its bytes."""

    def program(self, program: Program) -> list[Outcome]:
        """Run the program."""
        try:
            for step in program:
                if "do" in step:
                    self.block(step["do"])
                else:
                    self.step(step, functools.partial(self.call, to=step.get("to")))
        finally:
            self.end()
        return self.outcomes

    def end(self) -> None:
        """Release everything. Before that, check whether what was opened for reading has changed."""
        for name, (owner, before) in self.kept.items():
            if not owner.closed and owner.read_bytes() != before:
                self.outcomes.append(("kept", "escaped", f"WrittenError: {name} was opened for reading alone"))
        for view in self.views:
            view.release()
        for thing in reversed(self.objects.values()):
            thing.close()

    def step(self, step: Step, call: Callable[[str, dict[str, Any]], None]) -> bool:
        """Make one call; return True if it was not refused."""
        name = step["call"]
        try:
            call(name, {key: self.value(value) for key, value in step["with"].items()})
        except MissingError:
            self.outcomes.append((name, "missing", ""))
        except ALLOWED as error:
            self.outcomes.append((name, "refused", f"{type(error).__name__}: {error}"))
        except Exception:  # noqa: BLE001  # the finding
            self.outcomes.append((name, "escaped", traceback.format_exc()))
        else:
            self.outcomes.append((name, "ran", ""))
            return True
        return False

    def block(self, steps: list[Step]) -> None:
        """Run a block of commands. They ran if its end came without an error."""
        first = len(self.outcomes)
        recorded: list[int] = []

        def submit(_name: str, _given: dict[str, Any]) -> None:
            with self.device.commands() as commands:
                for step in steps:
                    if self.step(step, functools.partial(self.record, commands)):
                        recorded.append(len(self.outcomes) - 1)

        if not self.step({"call": "commands", "with": {}}, submit):
            for index in recorded:
                self.outcomes[index] = (self.outcomes[index][0], "refused", "by the end of its block")
        assert len(self.outcomes) > first

    def record(self, commands: Commands, call: str, given: dict[str, Any]) -> None:
        if call == "close":
            given["what"].close()
        else:
            getattr(commands, call)(**given)

    def call(self, call: str, given: dict[str, Any], to: str | None) -> None:
        """Make a call of the device, of memory or of a resource."""
        made: Any = None
        if call == "planted death":
            os.abort()
        elif call == "planted error":
            raise LookupError("planted")
        elif call == "hostile":
            hostile.imported(self.device, **given)
        elif call == "close":
            given["what"].close()
        elif call == "allocate":
            made = self.named_memory[given["name"]] = self.device.allocate(**given)
            made.fill(1)
        elif call == "open":
            made = self.device.open(**given)
            if made.read_only:
                owner = self.named_memory[given["source"]]
                self.kept[given["source"]] = owner, bytes(owner.read_bytes())
        elif call == "spoil":
            spoil(self.given[given["given"]])
            if given["how"]:
                spoil(given["what"].descriptor.dedicated if isinstance(given["what"], DeviceMemory) else _info(given))
        elif call == "closed_device":
            try:
                getattr(closed_device(), given["method"])(given["info"])
            except extmem.HandleStateError:
                return
            raise AssertionError(f"a closed device answers {given['method']}")
        elif call == "write":
            given["memory"].write(bytes(range(given["data"])), offset=given["offset"])
        elif call == "map":
            self.views.append(view := given["memory"].map())
            assert len(view) == 0 or view[0] + view[-1] >= 0
        elif call in ("read_bytes", "fill", "buffer"):
            memory: DeviceMemory = given.pop("memory")
            made = getattr(memory, call)(**given)
        elif call == "subresource_layout":
            given["image"].subresource_layout(given["subresource"])
        elif call == "get_memory_fd":
            self.device.get_memory_fd(**given).close()
        else:
            made = getattr(self.device, call)(**given)
        if to is not None:
            self.objects[to] = made
            self.given[to] = given.get("info")

    # Arguments.

    def value(self, value: Value) -> Any:
        """Return what the JSON describes."""
        if isinstance(value, list):
            return [self.value(entry) for entry in value]
        if not isinstance(value, dict):
            return value
        if CLASS in value:
            return self.struct(value)
        if "ref" in value:
            return self.named(value["ref"])
        if "odd" in value:
            return {"object": object(), "struct": vk.Extent3D(1, 1, 1), "index": Odd()}[value["odd"]]
        if "fd" in value:
            made = self.named(value["fd"]).export_handle(FD)
            self.objects[f"fd {len(self.objects)}"] = made
            return made
        return self.number(self.named(value["of"]), value["what"]) + value["plus"]

    def named(self, name: str) -> Any:
        if name not in self.objects:
            raise MissingError(name)
        return self.objects[name]

    def number(self, thing: Any, what: str) -> int:
        """Return a number of an object, by its name."""
        if what == "memory":
            return int(thing.allocation_size)
        if what == "length":
            return int(thing.size) if isinstance(thing, Buffer) else 4
        if what in ("aspects", "aspect"):
            found = aspects(int(thing.create_info.format)) if isinstance(thing, Image) else 1
            return found if what == "aspects" else found & -found
        needs = thing.requirements
        if what == "type":
            bits = needs.memory_type_bits
            return (bits & -bits).bit_length() - 1
        return int({"size": needs.size, "alignment": needs.alignment}[what])

    def struct(self, value: dict[str, Value]) -> vk.Struct:
        """Return the struct that a dict describes; enums and flags are members of their class where possible."""
        kind: type[vk.Struct] = getattr(vk, value[CLASS])
        types, fields = hints(kind), {}
        for name, entry in value.items():
            if name != CLASS:
                first = (typing.get_args(types[name]) or (types[name],))[0]
                fields[name] = self.value(entry)
                if isinstance(first, type) and issubclass(first, enum.Enum) and isinstance(fields[name], int):
                    try:
                        fields[name] = first(fields[name])
                    except ValueError:
                        pass  # a number that the enum does not have
        return kind(**fields)


def spoil(struct: Any) -> None:
    """Change all numbers of a struct, of its members, and of its chain."""
    left = 64  # a chain may lead back into itself
    while isinstance(struct, vk.Struct) and left:
        left -= 1
        for name in struct.__match_args__:
            value = getattr(struct, name)
            if isinstance(value, list):
                value.append(9)
            elif isinstance(value, vk.Struct) and name != "p_next":
                spoil(value)
            elif isinstance(value, int):
                setattr(struct, name, 1 << 20)
        struct = struct.p_next if isinstance(struct, vk.ChainStruct) else None


def _info(given: dict[str, Any]) -> Any:
    return given["what"].create_info


@functools.cache
def closed_device() -> Device:
    """Return a closed device, one for all programs."""
    with extmem.open_device(kind="vulkan") as device:
        pass
    return device


def aspects(number: int) -> int:
    """Return the aspects of a format, for barriers: depth, stencil or both, or color."""
    name = vk.Format(number).name
    deep = 2 if re.search(r"(^|_)D\d", name) else 0
    stencil = 4 if re.search(r"(^|_)S8", name) else 0
    return deep | stencil or 1


def take_away(hole: str) -> None:
    """Replace a check by one that finds nothing."""
    module, path = hole.split(":")
    *owners, name = path.split(".")
    place: Any = importlib.import_module(module)
    for owner in owners:
        place = getattr(place, owner)
    getattr(place, name)  # it must exist
    setattr(place, name, lambda *_args, **_more: ())


def main() -> None:
    """Run what stdin has."""
    faulthandler.enable()
    limits.setrlimit(limits.RLIMIT_AS, (_MEMORY, _MEMORY))
    limits.setrlimit(limits.RLIMIT_CORE, (0, 0))
    if len(sys.argv) > 1:
        take_away(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    with extmem.open_device(kind="vulkan") as device:
        answers.write("[]\n")  # it has started
        answers.flush()
        for line in sys.stdin:
            outcomes = Run(device).program(json.loads(line))
            if collector.PIPE in os.environ:
                collector.mark("done")
            answers.write(json.dumps(outcomes) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
