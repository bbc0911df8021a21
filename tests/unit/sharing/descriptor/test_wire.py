"""The bytes of descriptors: a wrong field, another version and another kind of object are named."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from extmem.errors import DescriptorError
from extmem.sharing.descriptor import Descriptor, wire
from extmem.sharing.descriptor.wire import VERSION
from extmem.sharing.limits import DESCRIPTOR_LIMIT
from tests.unit.sharing.descriptor.test_descriptor import BUFFER, FULL, plain

HEADER, BODY = wire._Header.__struct_fields__, wire._Memory.__struct_fields__


def raw(**changes: Any) -> list[Any]:
    """Return the wire form of a descriptor with all fields, as plain lists, which a test damages."""
    values = {**FULL, "made_by_vulkan": True, "dedicated": BUFFER}
    elements: list[Any] = msgspec.msgpack.decode(plain(**values).encode())
    for name, value in changes.items():
        if name == "version":
            elements[0] = value
        elif name in HEADER:
            elements[1][HEADER.index(name)] = value
        else:
            elements[2][BODY.index(name)] = value
    return elements


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"allocation_size": "big"}, "Expected `int`, got `str` - at `allocation_size`"),
        ({"allocation_size": 4096.0}, "allocation_size"),
        ({"allocation_size": 1 << 63}, "allocation_size"),
        ({"payload_size": True}, "payload_size"),
        ({"device_uuid": b"short"}, "device_uuid"),
        ({"luid": b"short"}, "luid"),
        ({"device_name": "n" * 257}, "device_name"),
        ({"device_name": b"n"}, "device_name"),
        ({"read_only": 1}, "read_only"),
        ({"dedicated": [3, 1]}, "dedicated"),
        ({"dedicated": [1, 0, 0, 0, 0, [], 0]}, "dedicated"),
        ({"dedicated": [1, -1, 64, 0, 0, [], 0, None]}, "dedicated flags is -1"),
        ({"dedicated": [1, 0, 64, -2, 0, [], 0, None]}, "dedicated usage is -2"),
        ({"dedicated": [1, 0, 64, 0, 0, [0] * 65, 0, None]}, "dedicated"),
        ({"dedicated": [1, 0, 1 << 40, 0, 0, [], 0, None]}, "buffer of"),
        ({"array": [[1], "uint8"]}, "array"),
        ({"array": [[1], "u" * 33, [1]]}, "array"),
        ({"array": [[1] * 65, "uint8", [1] * 65]}, "array"),
        ({"array": [[5000], "uint8", [1]]}, "takes 5000 bytes"),
        ({"image": [37, [1, 1], 0, None, 0]}, "image"),
        ({"device_group": [b"x" * 16] * 33}, "device_group"),
    ],
)
def test_bytes_that_lie_name_the_field(changes: dict[str, Any], problem: str) -> None:
    assert Descriptor.parse(msgspec.msgpack.encode(raw())).dedicated == BUFFER
    with pytest.raises(DescriptorError, match=problem):
        Descriptor.parse(msgspec.msgpack.encode(raw(**changes)))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (0, "of an object of kind 0, .* 1 MEMORY"),
        (1 << 40, f"of an object of kind {1 << 40}, .* 1 MEMORY"),
        (2, "of a semaphore .*, and memory is needed; .*open_timeline"),
        (3, "of a fence .*, and memory is needed; .*import_fence_fd"),
    ],
)
def test_another_kind_of_object_is_named(kind: int, said: str) -> None:
    whole = raw(object_kind=kind)
    for elements in (whole, [VERSION, [kind], []], [VERSION, whole[1], [{"other": "body"}]]):
        with pytest.raises(DescriptorError, match=said):
            Descriptor.parse(msgspec.msgpack.encode(elements))


@pytest.mark.parametrize("version", [0, VERSION + 1, 1 << 60, -1])
def test_another_version_is_told_with_ours(version: int) -> None:
    for elements in (raw(version=version), [version], [version, {"anything": "else"}], [version] + ["x"] * 100):
        with pytest.raises(DescriptorError, match=f"has version {version} and this library reads version {VERSION}"):
            Descriptor.parse(msgspec.msgpack.encode(elements))


@pytest.mark.parametrize(
    "data",
    [b"\xc1", b"\x00", b"\x80", b"\x90", b"\xc0", b"text", b"\xdd\xff\xff\xff\xff", b"\x91\xa1x", b"\xff" * 4080],
)
def test_noise_is_no_descriptor(data: bytes) -> None:
    with pytest.raises(DescriptorError):
        Descriptor.parse(data)


def test_text_that_is_no_text_is_refused() -> None:
    data = plain(device_name="extmem").encode()
    broken = data.replace(b"\xa6extmem", b"\xa6ext\xff\xfem", 1)
    assert broken != data
    with pytest.raises(DescriptorError):
        Descriptor.parse(broken)


def test_length_is_bounded_both_ways() -> None:
    with pytest.raises(DescriptorError, match="no descriptor"):
        Descriptor.parse(b"")
    with pytest.raises(DescriptorError, match=f"1 to {DESCRIPTOR_LIMIT}"):
        Descriptor.parse(bytes(DESCRIPTOR_LIMIT + 1))
    for cut in (1, 10, 50):
        with pytest.raises(DescriptorError):
            Descriptor.parse(plain().encode()[:-cut])
    with pytest.raises(DescriptorError):
        Descriptor.parse(plain().encode() + b"\0")
    with pytest.raises(DescriptorError, match="malformed"):
        Descriptor.parse(msgspec.msgpack.encode([*raw(), 1]))
    with pytest.raises(DescriptorError, match="malformed"):
        Descriptor.parse(msgspec.msgpack.encode(raw()[:-1]))
