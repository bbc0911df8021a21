"""Invariant: any bytes, bare or in a memfd's last page, are a self-consistent descriptor or a DescriptorError.

Run `python -m fuzz.fuzz_descriptor --iterations 100000 --seed 1`. It prints one line of counts. If the invariant is
broken, it ends with the seed, the round and the bytes.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec

from extmem import vk
from extmem.errors import DescriptorError
from extmem.sharing.descriptor import ArrayInfo, Descriptor, ImageInfo, PlaneInfo
from extmem.sharing.descriptor.sync import SyncDescriptor
from extmem.testing.leaks import descriptors

FD = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD
_EDGES = (0, 1, -1, 127, 128, 255, 256, 4095, 4096, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, -(1 << 63))


def corpus() -> list[bytes]:
    """Return valid descriptors of every form."""
    common: dict[str, Any] = {
        "handle_types": 3,
        "allocation_size": 1 << 16,
        "memory_type_index": 1,
        "device_uuid": bytes(range(16)),
        "driver_uuid": bytes(range(16, 32)),
        "device_name": "extmem host memory",
        "driver_name": "extmem",
        "owner_pid": 4321,
    }
    external = vk.ExternalMemoryImageCreateInfo(vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_WIN32)
    image = vk.ImageCreateInfo(extent=vk.Extent3D(8, 8, 1), mip_levels=1, array_layers=1, p_next=external)
    drm = vk.ImageTiling.DRM_FORMAT_MODIFIER_EXT
    named = vk.ImageDrmFormatModifierExplicitCreateInfoEXT(0, (vk.SubresourceLayout(row_pitch=64),))
    placed = vk.ImageCreateInfo(format=vk.Format(37), extent=vk.Extent3D(8, 8, 1), tiling=drm, p_next=named)
    buffer = vk.BufferCreateInfo(
        size=1024,
        queue_family_indices=(0, 1),
        p_next=vk.ExternalMemoryBufferCreateInfo(FD, vk.BufferUsageFlags2CreateInfo(1)),
    )
    group = {"device_mask": 3, "device_group": (b"1" * 16, b"2" * 16), "luid": b"l" * 8}
    extras: list[dict[str, Any]] = [
        {},
        {"array": ArrayInfo((16, 16, 4), "float32", (256, 16, 4)), "payload_size": 4096, "payload_offset": 64},
        {"array": ArrayInfo((0, 3), "int8", (3, 1))},
        {"image": ImageInfo(int(vk.Format.R8G8B8A8_UNORM), (64, 64, 1), 1, None, 256), "read_only": True},
        {"dedicated": buffer},
        {"dedicated": image},
        {"dedicated": placed, "image": ImageInfo(37, (8, 8, 1), int(drm), 0, 64, (PlaneInfo(0, 512, 64),))},
        {"made_by_vulkan": False, "memory_type_bits": 3, **group},
        {"made_by_vulkan": False, "producer": "cuda-vmm"},
    ]
    syncs: list[dict[str, Any]] = [
        {"object_kind": 2, "timeline": True, "initial_value": 7, "host": True},
        {"object_kind": 2, "flags": 1, "device_uuid": bytes(16), "luid": b"l" * 8},
        {"object_kind": 3, "device_name": "extmem host memory", "owner_pid": 4321},
    ]
    sync = [SyncDescriptor(handle_types=3, **values).encode() for values in syncs]
    return [*(Descriptor(**common, **extra).encode() for extra in extras), *sync]


def spoil_bytes(rng: random.Random, data: bytes) -> bytes:
    """Return the data with raw bytes flipped, removed, repeated, inserted or replaced."""
    spoilt = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        at = rng.randrange(len(spoilt) + 1)
        match rng.randrange(5):
            case 0 if spoilt:
                spoilt[at % len(spoilt)] ^= 1 << rng.randrange(8)
            case 1 if spoilt:
                spoilt[at % len(spoilt)] = rng.choice(
                    (0x00, 0x7F, 0x80, 0x90, 0xC0, 0xC1, 0xCF, 0xD3, 0xDD, 0xDF, 0xFF)
                )
            case 2:
                del spoilt[at : at + rng.randrange(1, 9)]
            case 3:
                spoilt[at:at] = rng.randbytes(rng.randrange(1, 9))
            case _:
                spoilt += spoilt[at : at + rng.randrange(1, 5000)]
    return bytes(spoilt)


def spoil_values(rng: random.Random, data: bytes) -> bytes:
    """Return the data with one element, at any depth, replaced by a value of another type or size."""
    elements: Any = msgspec.msgpack.decode(data)
    place = elements
    index = rng.randrange(len(place))
    while isinstance(place[index], list) and place[index] and rng.random() < 0.8:
        place = place[index]
        index = rng.randrange(len(place))
    values: tuple[Callable[[], Any], ...] = (
        lambda: rng.choice(_EDGES),
        lambda: rng.getrandbits(rng.randrange(1, 64)),
        lambda: rng.choice((None, True, False, 1.5, "", "uint8", "O", "\x1b[31m", "é" * 300)),
        lambda: rng.randbytes(rng.choice((0, 8, 15, 16, 17, 300))),
        lambda: [rng.choice(_EDGES) for _ in range(rng.choice((0, 1, 3, 64, 65)))],
        lambda: {"a": 1},
    )
    place[index] = rng.choice(values)()
    return msgspec.msgpack.encode(elements)


def check(data: bytes) -> str:
    """Parse the data as of memory, and as of a semaphore or fence. Return "refused", "parsed" or "parsed as sync".

    Errors: AssertionError if the invariant is broken.
    """
    try:
        sync = SyncDescriptor.parse(data)
    except DescriptorError as error:
        assert str(error), "a refusal without a reason"
        sync = None
    try:
        descriptor = Descriptor.parse(data)
    except DescriptorError as error:
        assert str(error), "a refusal without a reason"
        if sync is None:
            return "refused"
        assert sync.object_kind in (2, 3) and (sync.timeline or not sync.initial_value)
        assert SyncDescriptor.parse(sync.encode()) == sync and (sync.device_name + sync.driver_name).isprintable()
        return "parsed as sync"
    assert sync is None, "the same bytes are memory and a semaphore"
    assert 0 <= descriptor.payload_offset < descriptor.payload_offset + descriptor.payload_size
    assert descriptor.payload_offset + descriptor.payload_size <= descriptor.allocation_size < 1 << 63
    assert (descriptor.device_name + descriptor.driver_name).isprintable()
    array = descriptor.array
    if array is not None and 0 not in array.shape:
        corners = [(n - 1) * step for n, step in zip(array.shape, array.strides, strict=True)]
        assert sum(step for step in corners if step < 0) == 0
        assert sum(corners) < descriptor.payload_size
    again = Descriptor.parse(descriptor.encode())
    assert again == descriptor and again.payload_facts() == descriptor.payload_facts()
    return "parsed"


def run(iterations: int, seed: int) -> Counter[str]:
    """Run `iterations` rounds, on Linux one in eight through a memory file. Return the count of each outcome.

    Errors: those of a broken invariant, with a note that contains seed, round and bytes.
    """
    rng = random.Random(seed)
    seeds = corpus()
    outcomes: Counter[str] = Counter()
    for round_number in range(iterations):
        data = b""
        try:
            if round_number % 8 == 0 and sys.platform == "linux":
                from fuzz import memory_files

                outcomes[memory_files.check(rng, seeds) + " in a memfd"] += 1
                continue
            spoil = spoil_values if rng.random() < 0.5 else spoil_bytes
            data = spoil(rng, rng.choice(seeds))
            if rng.random() < 0.05:
                data = rng.randbytes(rng.choice((0, 1, 30, 4080, 4081)))
            outcomes[check(data)] += 1
        except BaseException as error:
            error.add_note(f"seed {seed}, round {round_number}, bytes {data.hex()}")
            raise
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--iterations", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    before = len(descriptors())
    outcomes = run(asked.iterations, asked.seed)
    leaked = len(descriptors()) - before
    counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    print(f"{asked.iterations} rounds with seed {asked.seed}: {counts}, {leaked} fds leaked")
    return 1 if leaked else 0


if __name__ == "__main__":
    sys.exit(main())
