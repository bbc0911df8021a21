"""Cases: binding, in both forms of the command."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from extmem import rules, vk
from extmem.rules import Violation
from tests.rules.world import GPU, SIZE, TYPE, T, buffer, buffer_info, case, image, image_info, memory

OPAQUE = T.OPAQUE_WIN32
Put = Callable[..., list[Violation]]


def bind_buffer(form: Any) -> Put:
    return lambda resource, mem, offset=0: rules.check_bind_buffer_memory(
        vk.BindBufferMemoryInfo(1, 2, offset), resource, mem, form=form, device=GPU.identity
    )


def bind_image(form: Any) -> Put:
    return lambda resource, mem, offset=0: rules.check_bind_image_memory(
        vk.BindImageMemoryInfo(1, 2, offset), resource, mem, form=form, device=GPU.identity
    )


def enter(make: Any, info: Any, other: Any, put: Any, ids: dict[str, str]) -> None:
    """The same cases for buffers and images, for one form: what is wrong → the id of the rule in this form."""
    shared, kmt = make(info(OPAQUE)), make(info(T.OPAQUE_WIN32_KMT))
    exported = memory(export_handle_types=int(OPAQUE))
    imported = memory(import_handle_type=int(OPAQUE))
    own = memory(dedicated=make())
    case(ids["bound"], lambda: put(make(bound=True), memory()), lambda: put(make(), memory()))
    case(
        ids["offset"],
        lambda: put(make(size=256), memory(), SIZE),
        lambda: put(make(size=256), memory(), SIZE - 256),
        ids["size"],
    )
    case(ids["type"], lambda: put(make(), memory(memory_type_index=2)), lambda: put(make(), memory()))
    case(ids["alignment"], lambda: put(make(size=1), memory(), 128), lambda: put(make(size=1), memory(), 256))
    case(ids["size"], lambda: put(make(size=SIZE + 1), memory()), lambda: put(make(size=SIZE), memory()))
    case(ids["export"], lambda: put(kmt, exported), lambda: put(shared, exported))
    case(ids["import"], lambda: put(make(), imported), lambda: put(shared, imported))
    case(
        ids["required"],
        lambda: put(make(requires_dedicated=True), memory()),
        lambda: put(make(requires_dedicated=True), own),
    )
    sparse = info()
    sparse.flags = vk.ImageCreateFlagBits.SPARSE_BINDING
    case(ids["sparse"], lambda: put(make(sparse), memory()), lambda: put(make(), memory()))
    case(ids["mine"], lambda: put(make(identity=12), own), lambda: put(make(), own))
    case(ids["kind"], lambda: put(make(), memory(dedicated=other())), lambda: put(make(), own))


BUFFER = {
    "bound": "buffer-07459",
    "sparse": "buffer-01030",
    "offset": "memoryOffset-01031",
    "type": "memory-01035",
    "alignment": "None-10739",
    "size": "None-10741",
    "export": "memory-02726",
    "import": "memory-02985",
    "required": "buffer-01444",
    "mine": "memory-01508",
    "kind": "memory-10925",
}
IMAGE = {
    "bound": "image-07460",
    "sparse": "image-01045",
    "offset": "memoryOffset-01046",
    "type": "memory-01047",
    "alignment": "None-10735",
    "size": "None-10737",
    "export": "memory-02728",
    "import": "memory-02989",
    "required": "image-01445",
    "mine": "memory-02628",
    "kind": "memory-10926",
}
IMAGE2 = IMAGE | {"type": "pNext-01615", "alignment": "pNext-01616", "size": "pNext-01617"}


def _of(struct: str, tails: dict[str, str]) -> dict[str, str]:
    return {what: f"{struct}-{tail}" for what, tail in tails.items()}


assert TYPE == 1
enter(buffer, buffer_info, image, bind_buffer(1), _of("vkBindBufferMemory", BUFFER))
enter(buffer, buffer_info, image, bind_buffer(2), _of("VkBindBufferMemoryInfo", BUFFER))
enter(image, image_info, buffer, bind_image(1), _of("vkBindImageMemory", IMAGE))
enter(image, image_info, buffer, bind_image(2), _of("VkBindImageMemoryInfo", IMAGE2))

ELSEWHERE = GPU.identity + 1


def parents(kind: str, make: Any, one: Put, two: Put) -> None:
    """Resource and memory of another logical device. one, two: the forms of the command."""
    struct = kind.capitalize()
    here, there = memory(device_identity=GPU.identity), memory(device_identity=ELSEWHERE)
    case(
        f"vkBind{struct}Memory-{kind}-parent",
        lambda: one(make(device_identity=ELSEWHERE), here),
        lambda: one(make(), here),
    )
    case(f"vkBind{struct}Memory-memory-parent", lambda: one(make(), there), lambda: one(make(), here))
    case(f"VkBind{struct}MemoryInfo-commonparent", lambda: two(make(), there), lambda: two(make(), here))


parents("buffer", buffer, bind_buffer(1), bind_buffer(2))
parents("image", image, bind_image(1), bind_image(2))


for make, put, struct in (
    (buffer, rules.check_bind_buffer_memory, vk.BindBufferMemoryInfo),
    (image, rules.check_bind_image_memory, vk.BindImageMemoryInfo),
):
    case(
        f"Vk{struct.__name__}-pNext-pNext",
        lambda make=make, put=put, struct=struct: put(struct(1, 2, 0, vk.ExportMemoryAllocateInfo()), make(), memory()),  # type: ignore[misc]
        lambda make=make, put=put, struct=struct: put(struct(1, 2, 0), make(), memory()),  # type: ignore[misc]
    )
