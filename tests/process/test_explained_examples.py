"""The examples of `extmem explain` for error classes: the wrong one raises the error, and the right one raises none."""

from __future__ import annotations

import os
from typing import Any

import pytest

import extmem
from extmem import errors, vk
from extmem.rules._error_texts import CLASSES

pytestmark = pytest.mark.linux_only("the object manager of the examples is the broker")

SETUP = {
    "ExtmemError": "",
    "RuleViolation": "",
    "HandleStateError": "shared = device.allocate(1024, name='shared')\nhandle = shared.export_handle()",
    "LiveViewError": "memory = device.allocate(1024)",
    "ObjectManagerError": "",
    "NameTakenError": "",
    "NameNotFoundError": "",
    "NameTimeoutError": "",
    "NameInvalidError": "",
    "AccessDeniedError": "shared = device.allocate(1024, name='frames')",
    "InvalidHandleError": "shared = device.allocate(4096, name='shared')\nhandle = shared.export_handle()",
    "SecurityDescriptorError": "",
    "DescriptorError": "memory = device.allocate(1024)",
    "WaitTimeoutError": "timeline = device.timeline()",
    "ChannelTakenError": "",
    "ChannelFullError": "",
    "ReaderTooSlowError": "writer = extmem.create_channel('camera', 16, slots=2, when_full='raise')",
    "FramesLostError": "writer = extmem.create_channel('camera', 16, slots=3)",
    "WriterGoneError": "writer = extmem.create_channel('camera', 16)",
}
"""What stands before the examples of a class."""
NOT_RUN = {
    "UnsupportedError": "needs a machine without a driver",
    "StaleSourceError": "needs PyTorch's memory on a GPU",
    "DriverError": "needs a device that fails",
    "OutOfMemoryError": "would use the memory of the machine",
    "ObjectTypeError": "needs an event of the Windows kernel",
    "QuotaError": "would need millions of handles",
    "PeerError": "needs another process that fails",
    "PeerGoneError": "needs another process that fails",
    "PeerProtocolError": "needs another process that fails",
    "InternalError": "needs a bug",
    "ChannelCorruptError": "needs a faulty writer",
    "GpuFrameLostError": "needs a GPU, and a writer that is killed",
}
"""Classes whose examples cannot run in a test, with the reason."""
HANDLED = {"ExtmemError"}
"""Classes whose wrong example handles the error itself."""


def _run(*sources: str) -> None:
    with extmem.open_device(kind="host") as device:
        names: dict[str, Any] = {"extmem": extmem, "vk": vk, "device": device, "size": 4096, "index": 0}
        names |= {"T": vk.ExternalMemoryHandleTypeFlagBits, "pid": os.getpid()}
        try:
            for source in sources:
                exec(compile(source, "<example>", "exec"), names)
        finally:
            names.pop("array", None)
            if "value" in names:  # of a handle that was duplicated into this process
                extmem.raw.nt_handle(names["value"]).close()
            for value in names.values():
                if isinstance(value, (extmem.Channel, extmem.DeviceMemory, extmem.NtHandle, extmem.Timeline)):
                    value.close()


def test_every_class_is_in_one_of_the_tables() -> None:
    assert set(SETUP) | set(NOT_RUN) == set(CLASSES)
    assert not set(SETUP) & set(NOT_RUN)


@pytest.mark.parametrize("name", SETUP)
def test_the_wrong_example_raises_the_error_and_the_right_one_none(name: str) -> None:
    example = CLASSES[name]
    if name in HANDLED:
        _run(SETUP[name], example.wrong)
    else:
        with pytest.raises(getattr(errors, name)):
            _run(SETUP[name], example.wrong)
    _run(SETUP[name], example.right)


def test_an_example_that_raises_another_error_is_found() -> None:
    with pytest.raises(extmem.RuleViolation):  # what the example of DriverError must not be
        _run("", "frame = device.allocate(1 << 62)")
