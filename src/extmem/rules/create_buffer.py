"""VkBufferCreateInfo: the rules on creating a buffer, whether or not its memory is external."""

from __future__ import annotations

from extmem import vk
from extmem.rules._creation import CREATE_BUFFER, Create, foreign_structs, repeated_structs
from extmem.rules._enabled import BUFFER_FLAGS, BUFFER_USAGES, lacking_bits
from extmem.rules._engine import Finding, rule
from extmem.rules._text import enum_text

__all__: list[str] = []

_INFO = "VkBufferCreateInfo"
_WHERE = "BufferCreateInfo"


def _usage_is_chained(call: Create) -> bool:
    return any(type(node) is vk.BufferUsageFlags2CreateInfo for node in call.chain)


@rule(f"{_INFO}-pNext-pNext", on=CREATE_BUFFER)
def only_extending_structs(call: Create) -> Finding | None:
    """The chain contains only structs that extend the create info, and whose extensions are enabled."""
    return foreign_structs(call, _INFO)


@rule(f"{_INFO}-sType-unique", on=CREATE_BUFFER)
def each_struct_once(call: Create) -> Finding | None:
    """The chain contains each struct type once. A chain that leads back into itself repeats its structs."""
    return repeated_structs(call)


@rule(f"{_INFO}-size-00912", on=CREATE_BUFFER)
def size_is_positive(call: Create) -> Finding | None:
    """The size is not 0."""
    if int(call.info.size) > 0:
        return None
    return f"{_WHERE}.size", "it is 0", "Give the number of bytes, at least 1."


@rule(f"{_INFO}-flags-parameter", on=CREATE_BUFFER)
def flags_are_enabled(call: Create) -> Finding | None:
    """The flags are defined bits, and enabled on the device."""
    problem = lacking_bits(int(call.info.flags), vk.BufferCreateFlagBits, BUFFER_FLAGS, call.device)
    if not problem:
        return None
    return f"{_WHERE}.flags", problem, "Give bits of BufferCreateFlagBits that the device has."


@rule(f"{_INFO}-None-09499", on=CREATE_BUFFER)
def usage_is_enabled(call: Create) -> Finding | None:
    """The usage has defined and enabled bits only, unless the chain has the usage."""
    problem = lacking_bits(int(call.info.usage), vk.BufferUsageFlagBits, BUFFER_USAGES, call.device)
    if not problem or _usage_is_chained(call):
        return None
    return f"{_WHERE}.usage", problem, "Give bits of BufferUsageFlagBits that the device has."


@rule(f"{_INFO}-None-09500", on=CREATE_BUFFER)
def usage_is_given(call: Create) -> Finding | None:
    """The usage is not 0, unless the chain has the usage."""
    if int(call.info.usage) or _usage_is_chained(call):
        return None
    return f"{_WHERE}.usage", "it is 0", "State what the buffer is for, such as BufferUsageFlagBits.TRANSFER_SRC."


@rule(f"{_INFO}-sharingMode-parameter", on=CREATE_BUFFER)
def sharing_mode_is_defined(call: Create) -> Finding | None:
    """The sharing mode is EXCLUSIVE or CONCURRENT."""
    mode = int(call.info.sharing_mode)
    if mode in (vk.SharingMode.EXCLUSIVE, vk.SharingMode.CONCURRENT):
        return None
    return (
        f"{_WHERE}.sharing_mode",
        f"{enum_text(mode, vk.SharingMode)} is not a sharing mode",
        "Give SharingMode.EXCLUSIVE or CONCURRENT.",
    )


@rule(f"{_INFO}-flags-03338", on=CREATE_BUFFER)
def captured_addresses_are_enabled(call: Create) -> Finding | None:
    """Capturing addresses for replay needs a feature."""
    features = call.device.features if call.device is not None else None
    if features is None or not int(call.info.flags) & int(vk.BufferCreateFlagBits.DEVICE_ADDRESS_CAPTURE_REPLAY):
        return None
    if "bufferDeviceAddressCaptureReplay" in features:
        return None
    return (
        f"{_WHERE}.flags",
        "DEVICE_ADDRESS_CAPTURE_REPLAY needs the feature bufferDeviceAddressCaptureReplay, which is not enabled",
        "Omit DEVICE_ADDRESS_CAPTURE_REPLAY.",
    )
