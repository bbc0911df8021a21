"""Arbitrary programs of the public API: resources, memory, bindings and commands, valid and not.

How this works. A program is a list of steps, each a call with its arguments. It is JSON, so that it can be sent to a
process, shrunk, and shown. Three in five programs are meant to be valid throughout; in the others any field of any
struct and any argument may be arbitrary. In some, an object is closed at an unexpected place, or memory is opened for
reading and written to nevertheless. The same seed makes the same program.

In arguments, `{"ref": name}` is the object that an earlier step made, `{"of": name, "what": …, "plus": n}` a number of
it, `{"fd": name}` a new fd of that memory, and a dict with `class` a struct of `extmem.vk`. The call `hostile` imports
a file that its fields make from a driver's own (see `hostile.py`).
"""

from __future__ import annotations

from typing import Any, TypeAlias

from extmem import vk
from extmem.handles import Access
from tests.arbitrary import hostile
from tests.arbitrary.create_infos import COLORS, COPIED, COPIES, buffer_info, image_info
from tests.arbitrary.values import Draw, Value

__all__ = ["COMMANDS", "Program", "Step", "make"]

Step: TypeAlias = dict[str, Any]
"""A step. `call`; `with`, its arguments; `to`, the name of what it makes; `do`, the commands of a block."""
Program: TypeAlias = list[Step]

_B, _I, _A, _S, _L = (
    vk.BufferUsageFlagBits,
    vk.ImageUsageFlagBits,
    vk.AccessFlagBits,
    vk.PipelineStageFlagBits,
    vk.ImageLayout,
)
_FD = int(vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD)
_W32 = int(vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_WIN32)
_READ = int(Access.READ)
_ASPECTS = (0, 1, 2, 3, 4, 8, 16, 32, 64, 128, 1 << 10, 1 << 30, 1 << 31)
"""Single aspects, none, two at once, and no aspect."""
_IGNORED, _EXTERNAL = int(vk.QUEUE_FAMILY_IGNORED), int(vk.QUEUE_FAMILY_EXTERNAL)
COMMANDS = (
    "acquire",
    "release",
    "change_layout",
    "pipeline_barrier",
    "fill_buffer",
    "copy_buffer",
    "copy_buffer_to_image",
    "copy_image_to_buffer",
    "clear_color_image",
)


def make(seed: int) -> Program:
    """Return the program of this seed."""
    return _Maker(Draw(seed)).program()


def _ref(name: str) -> Value:
    return {"ref": name}


def _of(name: str, what: str, plus: int = 0) -> Value:
    return {"of": name, "what": what, "plus": plus}


class _Maker:
    def __init__(self, draw: Draw) -> None:
        self.draw = draw
        self.wild = draw.choice((0.0, 0.0, 0.0, 0.05, 0.2))
        """The share of arguments and fields that are arbitrary."""
        self.steps: Program = []
        self.buffers: list[str] = []
        self.images: list[str] = []
        self.memories: list[str] = []
        self.read_only: list[str] = []
        """Imports that may only be read. No other process has their payload, so its bytes must not change."""
        self.bound: set[str] = set()
        """The resources that were meant to be bound: commands use them more often than others."""
        self.linear: list[str] = []
        """The images whose layout can be queried."""
        self.in_layout: set[str] = set()
        """The images whose layout is GENERAL, if the program ran as meant."""

    def program(self) -> Program:
        draw = self.draw
        for _ in range(draw.choice((1, 2, 2, 3))):
            self.resource(draw.chance(0.5))
        if draw.chance(0.2):
            self.reading()
        for _ in range(draw.choice((0, 1, 1, 2))):
            self.step("commands", do=self.commands())
        for _ in range(draw.choice((0, 0, 1, 2))):
            self.verb()
        if draw.chance(0.2):
            self.close_early()
        if draw.chance(0.3):
            self.spoil()
        if draw.chance(0.1):
            self.ask_a_closed_device()
        return self.steps

    # Arguments.

    def odd(self, value: Value, instead: Value = None) -> Value:
        """Return the value, or an arbitrary number (or the given value) in its place."""
        if not self.draw.chance(self.wild):
            return value
        return self.draw.count() if instead is None else instead

    def step(self, call: str, to: str | None = None, do: list[Step] | None = None, **arguments: Value) -> None:
        step: Step = {"call": call, "with": arguments}
        if to is not None:
            step["to"] = to
        if do is not None:
            step["do"] = do
        self.steps.append(step)

    # Resources and memory.

    def resource(self, image: bool) -> None:
        """Add a resource, memory for it, and the binding."""
        draw = self.draw
        external = draw.choice((0, 0, _FD, _FD | _W32))
        kind = "image" if image else "buffer"
        names = self.images if image else self.buffers
        name = f"{kind}{len(names)}"
        names.append(name)
        info = image_info(draw, self.wild) if image else buffer_info(draw, self.wild)
        if info.get("tiling") == 1:
            self.linear.append(name)
        if external:
            link = draw.struct(
                vk.ExternalMemoryImageCreateInfo if image else vk.ExternalMemoryBufferCreateInfo,
                {"handle_types": external, "p_next": None},
                self.wild,
            )
            info = {**info, "p_next": link}
        info = draw.chain(info, {}, self.wild)
        self.step(f"create_{kind}", name, info=info)
        if draw.chance(0.05):
            return  # it stays unbound
        memory = f"memory{len(self.memories)}"
        self.memories.append(memory)
        self.step("allocate_memory", memory, info=self.allocation(name, image, external))
        self.bind(kind, name, memory)
        self.bound.add(name)

    def reading(self) -> None:
        """Add a payload that is opened for reading, and a buffer on it. There is at most one in a program."""
        self.read_only.append("reader")
        self.step("allocate", "owner", shape=self.draw.choice((64, 4096)), name="arbitrary", access=_READ)
        self.step("open", "reader", source="arbitrary")
        self.step("buffer", "read", memory=_ref("reader"))

    def allocation(self, resource: str, image: bool, external: int) -> Value:
        """Return the VkMemoryAllocateInfo for a resource."""
        draw = self.draw
        chain: Value = None
        source = draw.choice(self.memories)
        if source != self.memories[-1] and external and draw.chance(0.3):
            chain = draw.struct(
                vk.ImportMemoryFdInfoKHR, {"handle_type": _FD, "fd": {"fd": source}, "p_next": None}, self.wild
            )
        elif external and draw.chance(0.9):
            chain = draw.struct(vk.ExportMemoryAllocateInfo, {"handle_types": external, "p_next": None}, self.wild)
        if draw.chance(0.25):
            dedicated = resource if not draw.chance(self.wild) else draw.choice([*self.buffers, *self.images])
            image = image if not draw.chance(self.wild) else not image
            chain = {
                "class": "MemoryDedicatedAllocateInfo",
                "image" if image else "buffer": _ref(dedicated),
                "p_next": chain,
            }
        size = _of(resource, "size", draw.choice((0, 0, 0, 64, 4096)))
        if draw.chance(self.wild / 2):
            size = _of(resource, "size", -1)
        valid = {
            "allocation_size": self.odd(size),
            "memory_type_index": self.odd(_of(resource, "type")),
            "p_next": chain,
        }
        info = draw.struct(vk.MemoryAllocateInfo, valid)
        return draw.chain(info, {}, self.wild)

    def bind(self, kind: str, resource: str, memory: str) -> None:
        draw = self.draw
        if draw.chance(self.wild):
            resource = draw.choice([*self.buffers, *self.images])
        if draw.chance(self.wild):
            memory = draw.choice([*self.memories, *self.read_only])
        offset = self.odd(0, draw.choice((_of(resource, "alignment"), 1, 64, 1 << 40, _of(memory, "memory"))))
        if draw.chance(0.3):
            struct = vk.BindImageMemoryInfo if kind == "image" else vk.BindBufferMemoryInfo
            link = {"memory": _ref(memory), "memory_offset": offset, kind: _ref(resource), "p_next": None}
            self.step(f"bind_{kind}_memory2", infos=[draw.struct(struct, link)] * (2 if draw.chance(self.wild) else 1))
        else:
            self.step(f"bind_{kind}_memory", **{kind: _ref(resource), "memory": _ref(memory), "offset": offset})

    # Commands.

    def commands(self) -> list[Step]:
        draw = self.draw
        found: list[Step] = []
        for image in self.images:
            if image not in self.in_layout and draw.chance(0.9):
                self.in_layout.add(image)
                layouts = {"old_layout": int(_L.UNDEFINED), "new_layout": int(_L.GENERAL)}
                found.append({"call": "change_layout", "with": {"image": _ref(image), **layouts}})
        possible = [
            name
            for name in COMMANDS
            if ("image" not in name or self.images)
            and ("buffer" not in name or self.buffers)
            and (name != "change_layout" or self.images)
        ]
        for _ in range(draw.choice((1, 1, 2, 4))):
            call = draw.choice(possible)
            found.append({"call": call, "with": getattr(self, f"_{call}")()})
            if call == "release":
                found += self.after_release(found[-1]["with"]["resource"])
        if draw.chance(0.05):
            found.insert(draw.randint(0, len(found)), self.closing())
        return found

    def after_release(self, resource: Value) -> list[Step]:
        """Add what follows a release: the acquire and a use; where calls may be invalid, also the use alone."""
        found: list[Step] = []
        if not self.wild or self.draw.chance(0.3):
            found.append({"call": "acquire", "with": {"resource": resource}})
        if self.draw.chance(0.5) and resource["ref"] in self.images:
            use = {"image": resource, "color": [0.0, 0.0, 0.0, 0.0], "layout": self._layout()}
            found.append({"call": "clear_color_image", "with": use})
        elif self.draw.chance(0.5):
            found.append({"call": "fill_buffer", "with": {"buffer": resource, "word": 3}})
        return found

    def _one_of(self, names: list[str]) -> str:
        bound = [name for name in names if name in self.bound]
        return self.draw.choice(bound if bound and self.draw.chance(0.9) else names)

    def _any(self) -> str:
        return self._one_of([*self.buffers, *self.images])

    def _buffer(self) -> Value:
        if self.read_only and self.draw.chance(0.2):
            return _ref("read")
        return _ref(self._any() if self.draw.chance(self.wild / 2) else self._one_of(self.buffers))

    def _image(self) -> Value:
        return _ref(self._any() if self.draw.chance(self.wild / 2) else self._one_of(self.images))

    def _layout(self, usual: int = int(_L.GENERAL)) -> Value:
        return self.odd(usual, self.draw.of_type(vk.ImageLayout))

    def _transfer(self, peer: str) -> Value:
        resource = self._any()
        made: Value = {"resource": _ref(resource)}
        if self.draw.chance(0.3):
            made[peer] = self.odd(_EXTERNAL)
        if self.draw.chance(0.3):
            made |= {"old_layout": self._layout(), "new_layout": self._layout()}
        return made

    def _acquire(self) -> Value:
        return self._transfer("source")

    def _release(self) -> Value:
        return self._transfer("target")

    def _change_layout(self) -> Value:
        return {"image": self._image(), "old_layout": self._layout(), "new_layout": self._layout()}

    def _pipeline_barrier(self) -> Value:
        draw = self.draw
        made: Value = {
            "src_stage_mask": self.odd(int(_S.TRANSFER), draw.of_type(vk.PipelineStageFlagBits)),
            "dst_stage_mask": self.odd(int(_S.ALL_COMMANDS), draw.of_type(vk.PipelineStageFlagBits)),
        }
        access = {"src_access_mask": int(_A.TRANSFER_WRITE), "dst_access_mask": int(_A.TRANSFER_READ), "p_next": None}
        families = {"src_queue_family_index": _IGNORED, "dst_queue_family_index": _IGNORED}
        kind = draw.choice(("memory", *(["buffer"] if self.buffers else []), *(["image"] if self.images else [])))
        if kind == "memory":
            made["memory_barriers"] = [draw.struct(vk.MemoryBarrier, access, self.wild)]
        elif kind == "buffer":
            buffer = self._buffer()
            whole = draw.choice((int(vk.WHOLE_SIZE), _of(buffer["ref"], "length")))
            valid = {**access, **families, "offset": 0, "size": whole, "buffer": buffer}
            made["buffer_memory_barriers"] = [draw.struct(vk.BufferMemoryBarrier, valid, self.wild)]
        else:
            image = self._image()
            parts = {
                "aspect_mask": _of(image["ref"], "aspects"),
                "base_mip_level": 0,
                "level_count": draw.choice((1, 0xFFFF_FFFF)),
                "base_array_layer": 0,
                "layer_count": draw.choice((1, 0xFFFF_FFFF)),
            }
            valid = {**access, **families, "old_layout": int(_L.GENERAL), "new_layout": int(_L.GENERAL), "image": image}
            valid["subresource_range"] = draw.struct(vk.ImageSubresourceRange, parts, self.wild)
            made["image_memory_barriers"] = [draw.struct(vk.ImageMemoryBarrier, valid, self.wild)]
        return made

    def _fill_buffer(self) -> Value:
        made: Value = {"buffer": self._buffer(), "word": self.odd(self.draw.getrandbits(32))}
        if self.draw.chance(0.4):
            made |= {"offset": self.odd(self.draw.choice((0, 4, 8))), "size": self.odd(self.draw.choice((4, 8, 16)))}
        return made

    def _copy_buffer(self) -> Value:
        source, target = self._buffer(), self._buffer()
        made: Value = {"source": source, "target": target}
        if source == target and not self.draw.chance(0.2):
            made |= {"source_offset": 0, "target_offset": 2, "size": 2}
        elif self.draw.chance(0.4):
            made |= {
                "source_offset": self.odd(self.draw.choice((0, 1, 4))),
                "target_offset": self.odd(self.draw.choice((0, 1, 4))),
                "size": self.odd(self.draw.choice((1, 2, 3))),
            }
        return made

    def _region(self) -> Value:
        made: Value = {"buffer": self._buffer(), "image": self._image()}
        if self.draw.chance(0.15):
            made["buffer_offset"] = self.odd(self.draw.choice((0, 4, 16)))
        if self.draw.chance(0.1):
            made["mip_level"] = self.odd(self.draw.choice((0, 1)))
        if self.draw.chance(0.1):
            made["array_layer"] = self.odd(self.draw.choice((0, 1)))
        if self.draw.chance(0.2):
            odd = self.draw.chance(3 * self.wild)
            made["aspect"] = self.draw.of_type(vk.ImageAspectFlagBits) if odd else _of(made["image"]["ref"], "aspect")
        if self.draw.chance(self.wild):
            made["layout"] = self._layout()
        return made

    _copy_buffer_to_image = _region
    _copy_image_to_buffer = _region

    def _clear_color_image(self) -> Value:
        made: Value = {"image": self._image(), "color": [0.0, 0.5, 1.0, self.odd(1.0, 1e30)]}
        if self.draw.chance(self.wild):
            made["layout"] = self._layout()
        return made

    # Other calls.

    def verb(self) -> None:
        """Add other calls of memory, resources and the device."""
        draw = self.draw
        if not self.memories or draw.chance(0.15):
            return self.query()
        if draw.chance(0.1):
            return self.step("hostile", **hostile.drawn(draw))
        memory = _ref(draw.choice([*self.memories, *self.read_only]))
        calls = ("write", "read_bytes", "fill", "map", "buffer", "flush", "get_memory_fd")
        call = draw.choice((*calls, *("layout",) * (4 if self.linear else 1)))
        if call == "write":
            self.step(call, memory=memory, data=draw.choice((1, 16, 100)), offset=self.odd(0))
        elif call == "read_bytes":
            self.step(call, memory=memory, offset=self.odd(0), size=self.odd(4))
        elif call == "fill":
            self.step(call, memory=memory, value=self.odd(7))
        elif call == "buffer":
            name = f"buffer{len(self.buffers)}"
            self.buffers.append(name)
            self.step(call, name, memory=memory)
        elif call == "get_memory_fd":
            valid = {"memory": memory, "handle_type": _FD, "p_next": None}
            self.step(call, info=draw.struct(vk.MemoryGetFdInfoKHR, valid, self.wild))
        elif call == "layout":
            if self.images:
                mask = draw.choice(_ASPECTS) if draw.chance(max(self.wild, 0.1)) else 1
                valid = {"aspect_mask": mask, "mip_level": 0, "array_layer": 0}
                part = draw.struct(vk.ImageSubresource, valid, self.wild)
                image = draw.choice(self.linear if self.linear and draw.chance(0.95) else self.images)
                self.step("subresource_layout", image=_ref(image), subresource=part)
        elif call == "flush":
            valid = {"memory": memory, "offset": 0, "size": int(vk.WHOLE_SIZE), "p_next": None}
            which = draw.choice(("flush_mapped_memory_ranges", "invalidate_mapped_memory_ranges"))
            self.step("map", memory=memory)
            self.step(which, ranges=[draw.struct(vk.MappedMemoryRange, valid, self.wild)])
        else:
            self.step("map", memory=memory)

    def query(self) -> None:
        draw = self.draw
        if draw.chance(0.5):
            valid = {"flags": 0, "usage": COPIES, "handle_type": _FD, "p_next": None}
            info = draw.struct(vk.PhysicalDeviceExternalBufferInfo, valid, self.wild)
            self.step("get_physical_device_external_buffer_properties", info=info)
        else:
            valid = {
                "format": int(draw.choice(COLORS)),
                "type": 1,
                "tiling": 0,
                "usage": COPIED,
                "flags": 0,
                "p_next": None,
            }
            info = draw.struct(vk.PhysicalDeviceImageFormatInfo2, valid, self.wild)
            external = {"PhysicalDeviceExternalImageFormatInfo": {"handle_type": _FD}}
            info = draw.chain(info, external, 0.5)
            self.step("get_physical_device_image_format_properties2", info=info)

    def closing(self) -> Step:
        """Close an object, which others may still use."""
        return {
            "call": "close",
            "with": {"what": _ref(self.draw.choice([*self.buffers, *self.images, *self.memories]))},
        }

    def spoil(self) -> None:
        """Change the caller's own struct, or what a getter returned, after the call: it must have no effect."""
        places = [at for at, step in enumerate(self.steps) if "info" in step["with"] and "to" in step]
        at = self.draw.choice(places)
        step: Step = {"call": "spoil", "with": {"what": _ref(self.steps[at]["to"]), "how": self.draw.randint(0, 1)}}
        step["with"]["given"] = self.steps[at]["to"]
        self.steps.insert(self.draw.randint(at + 1, len(self.steps)), step)

    def ask_a_closed_device(self) -> None:
        """Call a closed device: with what was queried of the open one before, or with a resource."""
        known = [step for step in self.steps if step["call"].startswith(("create_", "get_physical"))]
        step = self.draw.choice(known)
        self.step("closed_device", method=step["call"], info=step["with"]["info"])

    def close_early(self) -> None:
        self.steps.insert(self.draw.randint(1, len(self.steps)), self.closing())
