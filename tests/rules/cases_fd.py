"""Cases: file descriptors."""

from __future__ import annotations

from extmem import rules
from tests.rules.world import (
    CLOSED,
    EXPORTABLE,
    GPU,
    GPU_UUID,
    IMPORTABLE,
    OLD_DRIVER_UUID,
    OTHER_UUID,
    SIZE,
    T,
    alloc,
    ask_fd,
    buffer,
    buffer_info,
    can,
    case,
    export,
    fd,
    for_buffer,
    for_image,
    foreign,
    get_fd,
    image,
    image_info,
    memory,
    payload,
)

IMPORT = "VkImportMemoryFdInfoKHR"
GET = "VkMemoryGetFdInfoKHR"
ASK = "vkGetMemoryFdPropertiesKHR"
OPAQUE = T.OPAQUE_FD

case(
    "VkMemoryAllocateInfo-allocationSize-01742",
    lambda: alloc(fd(), size=SIZE // 2, payload=payload(OPAQUE)),
    lambda: alloc(fd(), size=SIZE, payload=payload(OPAQUE)),
)
case(
    "VkMemoryAllocateInfo-memoryTypeIndex-00648",
    lambda: alloc(fd(T.DMA_BUF), payload=foreign(T.DMA_BUF, 0b100)),
    lambda: alloc(fd(T.DMA_BUF), payload=foreign(T.DMA_BUF, 0b010)),
)
case(
    "VkMemoryDedicatedAllocateInfo-image-01878",
    lambda: alloc(fd(), for_image(), dedicated=image(image_info(OPAQUE)), payload=payload(OPAQUE, dedicated="buffer")),
    lambda: alloc(
        fd(),
        for_image(),
        dedicated=image(image_info(OPAQUE)),
        payload=payload(OPAQUE, dedicated="image", dedicated_info=image_info(OPAQUE)),
    ),
)
case(
    "VkMemoryDedicatedAllocateInfo-buffer-01879",
    lambda: alloc(
        fd(),
        for_buffer(),
        dedicated=buffer(buffer_info()),
        payload=payload(OPAQUE, dedicated="buffer", dedicated_info=buffer_info(OPAQUE)),
    ),
    lambda: alloc(
        fd(),
        for_buffer(),
        dedicated=buffer(buffer_info(OPAQUE)),
        payload=payload(OPAQUE, dedicated="buffer", dedicated_info=buffer_info(OPAQUE)),
    ),
)
case(
    f"{IMPORT}-handleType-09862",
    lambda: alloc(fd(), capabilities=can(EXPORTABLE, 0, 0, OPAQUE)),
    lambda: alloc(fd(), capabilities=can(IMPORTABLE, 0, 0, OPAQUE)),
)
case(
    f"{IMPORT}-fd-00668",
    lambda: alloc(fd(), payload=payload(OPAQUE, device_uuid=OTHER_UUID)),
    lambda: alloc(fd(), payload=payload(OPAQUE, device_uuid=GPU_UUID)),
    f"{IMPORT}-fd-01746",
    f"{IMPORT}-fd-01520",
    "VkMemoryAllocateInfo-None-00644",
)
case(f"{IMPORT}-handleType-00669", lambda: alloc(fd(T.OPAQUE_WIN32)), lambda: alloc(fd(T.DMA_BUF)))
case(
    f"{IMPORT}-handleType-00670",
    lambda: alloc(fd(), fd_is_valid=False),
    lambda: alloc(fd(), fd_is_valid=True),
)
case(
    f"{IMPORT}-fd-01746",
    lambda: alloc(fd(), payload=payload(OPAQUE, driver_uuid=OLD_DRIVER_UUID)),
    lambda: alloc(fd(), payload=payload(OPAQUE)),
    f"{IMPORT}-fd-01520",
)
case(
    f"{IMPORT}-fd-01520",
    lambda: alloc(fd(OPAQUE), payload=payload(OPAQUE, driver_uuid=OLD_DRIVER_UUID)),
    lambda: alloc(fd(T.DMA_BUF), payload=payload(T.DMA_BUF, driver_uuid=OLD_DRIVER_UUID, device_uuid=OTHER_UUID)),
    f"{IMPORT}-fd-01746",
)
case(
    f"{GET}-handleType-00671",
    lambda: get_fd(T.DMA_BUF),
    lambda: get_fd(T.DMA_BUF, export_handle_types=int(T.DMA_BUF | T.OPAQUE_FD)),
)
case(
    f"{GET}-handleType-00672",
    lambda: get_fd(T.OPAQUE_WIN32, export_handle_types=int(T.OPAQUE_WIN32)),
    lambda: get_fd(T.OPAQUE_FD),
)
case(f"{ASK}-fd-00673", lambda: ask_fd(number=-1), lambda: ask_fd(number=7, fd_is_valid=True))
case(f"{ASK}-handleType-00674", lambda: ask_fd(T.OPAQUE_FD), lambda: ask_fd(T.DMA_BUF))

# What the registry implies.
case(
    f"{IMPORT}-handleType-parameter",
    lambda: alloc(fd(OPAQUE | T.DMA_BUF)),
    lambda: alloc(fd(OPAQUE)),
)
case(f"{GET}-pNext-pNext", lambda: get_fd(chain=export()), lambda: get_fd(chain=None))
case(f"{GET}-memory-parameter", lambda: get_fd(alive=False), lambda: get_fd(alive=True))
case(f"{GET}-handleType-parameter", lambda: get_fd(1 << 31), lambda: get_fd(OPAQUE))
case("vkGetMemoryFdKHR-device-parameter", lambda: get_fd(device=CLOSED), lambda: get_fd(device=GPU))
case(
    "vkGetMemoryFdKHR-pGetFdInfo-parameter",
    lambda: rules.check_get_memory_fd("fd", GPU, memory()),  # type: ignore[arg-type]  # wrong on purpose
    lambda: get_fd(),
)
case(f"{ASK}-device-parameter", lambda: ask_fd(device=CLOSED), lambda: ask_fd(device=GPU))
case(f"{ASK}-handleType-parameter", lambda: ask_fd(0), lambda: ask_fd(T.DMA_BUF))
