"""Explanations of errors: extmem's classes, VkResults, NTSTATUS values and Win32 codes. Data for `extmem explain`.

The modules that raise the errors are not imported, because `rules` does not depend on the object manager. Tests compare
the numbers and the list of classes with the real ones.
"""

from __future__ import annotations

import msgspec

__all__ = ["CLASSES", "RESULTS", "STATUSES", "ErrorText", "NamedError", "StatusText"]


class ErrorText(msgspec.Struct, frozen=True):
    """A class of extmem.errors: its meaning, code that raises it and code that avoids it."""

    text: str
    wrong: str
    right: str


class NamedError(msgspec.Struct, frozen=True):
    """A VkResult with its number, what it means, and the class of extmem.errors it arrives as."""

    code: int
    text: str
    raised_as: str


class StatusText(msgspec.Struct, frozen=True):
    """An NTSTATUS with the Win32 error that it becomes, what it means, and the class it arrives as."""

    code: int
    winerror: int
    win32_name: str
    text: str
    raised_as: str


_TWO_EXPORTS = """\
first = device.allocate(1024, name="frames")
second = device.allocate(1024, name="frames")"""

CLASSES: dict[str, ErrorText] = {
    "ExtmemError": ErrorText(
        "The base class of all errors that extmem raises by itself: catch it to catch them all. What comes from the "
        "operating system alone stays an OSError.",
        "try:\n    memory = extmem.open('frames')\nexcept Exception:\n    memory = None  # also hides bugs",
        "try:\n    memory = extmem.open('frames')\nexcept extmem.ExtmemError as error:\n    print(error)",
    ),
    "RuleViolation": ErrorText(
        "The call would break the specification, so it was not passed to the device, and nothing changed. `violations` "
        "lists every broken rule with the field, the values and what to do instead.",
        "memory = device.allocate_memory(vk.MemoryAllocateInfo(allocation_size=0))",
        "memory = device.allocate_memory(vk.MemoryAllocateInfo(allocation_size=4096))",
    ),
    "UnsupportedError": ErrorText(
        "The device, the driver or the operating system does not support the request. `requires_one_of` names what "
        "would provide it.",
        "device = extmem.open_device(kind='vulkan')  # on a machine without a driver",
        "device = extmem.open_device()  # the best device of this machine",
    ),
    "DriverError": ErrorText(
        "A device command failed: `result` is the VkResult, `command` its name, `devices` the devices involved.",
        "memory.write(data)  # after the device was lost, for example",
        "try:\n    memory.write(data)\nexcept extmem.DriverError as error:\n    print(error.command, error.result)",
    ),
    "OutOfMemoryError": ErrorText(
        "There is no more memory, or no more descriptors or objects, on the device or the host. It is a MemoryError, "
        "too.",
        "frames = [device.allocate(1 << 30) for _ in range(1000)]",
        "with device.allocate(1 << 30) as frame:\n    pass  # freed at the end of the block",
    ),
    "HandleStateError": ErrorText(
        "The handle or memory was closed, given away with `take()`, or brought over a fork. Nothing is wrong with the "
        "payload.",
        "handle.close()\nmemory = extmem.open(handle)",
        "memory = extmem.open(handle)\nhandle.close()",
    ),
    "LiveViewError": ErrorText(
        "Memory is closed while an array or memoryview of it still exists. The memory is unchanged; drop the views "
        "first.",
        "array = memory.numpy()\nmemory.close()",
        "array = memory.numpy()\ndel array\nmemory.close()",
    ),
    "StaleSourceError": ErrorText(
        "The tensor that was shared where it is was freed, or has got other memory since (`set_`, `resize_`, "
        "`.data = …`). Others see the memory that it had when it was shared.",
        "memory = extmem.share(tensor, 'frames')\ntensor.resize_(2 * tensor.numel())\nmemory.read()",
        "memory = extmem.share(tensor, 'frames')\ntensor.copy_(changed)  # in place\nmemory.read()",
    ),
    "ObjectManagerError": ErrorText(
        "The object manager (the Windows kernel, or extmem's broker on Linux) refused. `ntstatus` and `winerror` are "
        "its error codes, `result` is the VkResult that a driver would return.",
        "memory = extmem.open('frames')  # no process shares memory of that name",
        "memory = device.allocate(1024, name='frames')\nsame = extmem.open('frames')",
    ),
    "WaitTimeoutError": ErrorText(
        "A wait ended before the value was reached, or before the fence was signaled. It is a TimeoutError, too. "
        "`value` is what was waited for, `reached` the value of the timeline then. Nothing has changed.",
        "timeline.wait(2, timeout=1)  # no process signals 2",
        "timeline.signal(2)  # in the process that owes the value\ntimeline.wait(2, timeout=1)",
    ),
    "NameTakenError": ErrorText(
        "The name belongs to a live object. An export never replaces an existing object. The name is free again when "
        "the last memory object and the last handle of that object are closed.",
        _TWO_EXPORTS,
        "first = device.allocate(1024, name='frames')\nsame = extmem.open('frames')  # or export under another name",
    ),
    "ChannelTakenError": ErrorText(
        "A channel has one writer at a time, and a live process is the writer of this one. After its end, the next "
        "`create_channel` goes on with the channel. It is a NameTakenError.",
        "first = extmem.create_channel('camera', (480, 640))\nsecond = extmem.create_channel('camera', (480, 640))",
        "first = extmem.create_channel('camera', (480, 640))\nreader = extmem.open_channel('camera')",
    ),
    "NameNotFoundError": ErrorText(
        "No live object has that name. A name exists as long as the memory and handles of its object; case does not "
        "matter, the namespace (Local, Global) does.",
        "device.allocate(1024, name='frames').close()\nsame = extmem.open('frames')",
        "with device.allocate(1024, name='frames'):\n    same = extmem.open('frames')",
    ),
    "NameTimeoutError": ErrorText(
        "No object got the name in the time for which `open` waited. It is a NameNotFoundError and a TimeoutError. "
        "Nothing is left of the wait.",
        "same = extmem.open('frames', timeout=0.1)  # no process shares memory of that name meanwhile",
        "memory = device.allocate(1024, name='frames')  # in the other process, before or during the wait\n"
        "same = extmem.open('frames', timeout=10)",
    ),
    "NameInvalidError": ErrorText(
        "No object could ever have that name: it is empty, too long, begins with a backslash, or names a namespace "
        "that does not exist.",
        "memory = device.allocate(1024, name='\\\\frames')",
        "memory = device.allocate(1024, name='frames')",
    ),
    "AccessDeniedError": ErrorText(
        "The object's security descriptor, or the granted access of the handle, does not allow it. The exporter "
        "decides who gets which rights, by `access` and `security` when allocating.",
        "handle = extmem.open_handle('frames', access=0)",
        "handle = extmem.open_handle('frames', access=extmem.Access.READ)",
    ),
    "ObjectTypeError": ErrorText(
        "The name or handle refers to an object of another type: an event, a mutex or a semaphore, not memory.",
        "extmem.open('an-event-of-the-same-name')",
        "extmem.open('frames')",
    ),
    "InvalidHandleError": ErrorText(
        "This process has no such handle, or no payload has that KMT number (any more). A handle value is valid only "
        "in its own process; pass the handle object, or duplicate it into the other process.",
        "imported = vk.ImportMemoryWin32HandleInfoKHR(T.OPAQUE_WIN32, 0x1234)\n"
        "device.allocate_memory(vk.MemoryAllocateInfo(size, index, imported))",
        "value = handle.duplicate(into=pid)  # the number to send to that process",
    ),
    "SecurityDescriptorError": ErrorText(
        "The text is not a security descriptor (SDDL) that the object manager accepts; the message names the position. "
        "It accepts allow and deny entries for WD (everyone), OW (the owner), S-1-22-1-uid and S-1-22-2-gid.",
        "memory = device.allocate(1024, name='frames', security='D:(A;;GR;;;Alice)')",
        "memory = device.allocate(1024, name='frames', security='D:(A;;GR;;;S-1-22-1-1000)')",
    ),
    "QuotaError": ErrorText(
        "This client holds as many objects, handles or tickets as one client may. Close some.",
        "handles = [handle.duplicate() for _ in range(10_000_000)]",
        "with handle.duplicate() as copy:\n    pass  # closed here",
    ),
    "DescriptorError": ErrorText(
        "A payload's descriptor is malformed, of an unknown version, or contradicts the payload. What the system "
        "reports about the payload always takes precedence.",
        "descriptor = extmem.Descriptor.parse(b'not a descriptor')",
        "descriptor = memory.descriptor",
    ),
    "ChannelCorruptError": ErrorText(
        "The control page of a channel has numbers that its writer never writes: the writer is faulty or hostile. "
        "Other channels are not concerned. It is a DescriptorError.",
        "frame = extmem.open_channel('camera').read()  # of a program that one does not trust",
        "frame = extmem.open_channel('my.camera').read()  # restart the writer, or open another channel",
    ),
    "ChannelFullError": ErrorText(
        "Each slot of the channel is held by a reader, or by a frame that is being written. `holders` are the readers, "
        "each with its pid, what it holds, and for how long.",
        "channel = extmem.create_channel('camera', 16, slots=1, when_full='raise')\n"
        "one, two = channel.write(), channel.write()",
        "channel = extmem.create_channel('camera', 16, slots=3, when_full='raise')\n"
        "one, two = channel.write(), channel.write()",
    ),
    "ReaderTooSlowError": ErrorText(
        "Each slot that is not held has a frame that a reliable reader has not read yet. `holders` are these readers. "
        "It is a ChannelFullError.",
        "reader = extmem.open_channel('camera', every=True, reliable=True)\n"
        "for _ in range(5):\n    writer.put(bytes(16))",
        "reader = extmem.open_channel('camera', every=True, reliable=True)\n"
        "for _ in range(5):\n    writer.put(bytes(16))\n    reader.read()",
    ),
    "FramesLostError": ErrorText(
        "Frames were overwritten before this reader read them, and it was opened with `strict=True`. `first` and "
        "`count` tell which. The next read returns the frame that is there.",
        "reader = extmem.open_channel('camera', every=True, strict=True)\n"
        "writer.put(bytes(16))\nframe = reader.read()\n"
        "for _ in range(5):\n    writer.put(bytes(16))\nframe = reader.read()",
        "reader = extmem.open_channel('camera', every=True)\n"
        "writer.put(bytes(16))\nframe = reader.read()\n"
        "for _ in range(5):\n    writer.put(bytes(16))\nlost = reader.read().skipped",
    ),
    "GpuFrameLostError": ErrorText(
        "The writer of a channel ended, or its device was lost, before the GPU had completed this frame: its bytes are "
        "not a frame. The next read returns a later one.",
        "with reader.read().on(stream) as tensor:  # of a writer that was killed\n    model(tensor)",
        "try:\n    with reader.read().on(stream) as tensor:\n        model(tensor)\n"
        "except extmem.GpuFrameLostError:\n    pass  # read the next frame",
    ),
    "PeerError": ErrorText(
        "The other process caused the error: it ended, or broke the protocol.",
        "memory = extmem.open('frames')  # its exporter breaks the protocol",
        "try:\n    memory = extmem.open('frames')\nexcept extmem.PeerError:\n    pass  # restart the other process",
    ),
    "PeerGoneError": ErrorText(
        "The other process ended or closed the connection before it replied, or before it signaled the value that a "
        "wait is for. Payloads that other processes hold are not lost, and the value of the timeline stays as it is. "
        "The message says whether the process ended normally, closed the timeline, or ended without closing it.",
        "timeline.wait(2)  # the process that was to signal 2 was killed",
        "try:\n    timeline.wait(2)\nexcept extmem.PeerGoneError:\n    timeline.signal(2)  "
        "# after this process has made the memory valid again",
    ),
    "WriterGoneError": ErrorText(
        "The writer of a channel has ended, or has closed the channel (`closed` tells which), and there is no newer "
        "frame. It is a PeerGoneError.",
        "reader = extmem.open_channel('camera')\nwriter.close()\nframe = reader.read()",
        "reader = extmem.open_channel('camera')\nwriter.close()\nfor frame in reader:\n    print(frame.number)",
    ),
    "PeerProtocolError": ErrorText(
        "The other process broke the wire format: another version of extmem, or not extmem at all.",
        "memory = extmem.open('frames')  # exported by an incompatible version",
        "version = extmem.__version__  # let both processes use the same",
    ),
    "InternalError": ErrorText(
        "A bug in extmem. Please report it with the whole message.",
        "pass  # no call should raise it",
        "pass  # nothing to change in your program",
    ),
}

RESULTS: dict[str, NamedError] = {
    "VK_ERROR_OUT_OF_HOST_MEMORY": NamedError(-1, "The host has not enough memory.", "OutOfMemoryError"),
    "VK_ERROR_OUT_OF_DEVICE_MEMORY": NamedError(
        -2,
        "The device has not enough memory. Some drivers also return it for a payload of another GPU.",
        "OutOfMemoryError",
    ),
    "VK_ERROR_INITIALIZATION_FAILED": NamedError(-3, "The driver could not start.", "DriverError"),
    "VK_ERROR_DEVICE_LOST": NamedError(
        -4, "The device stopped working; the contents of its memory are undefined in every process.", "DriverError"
    ),
    "VK_ERROR_MEMORY_MAP_FAILED": NamedError(-5, "The memory could not be mapped.", "DriverError"),
    "VK_ERROR_EXTENSION_NOT_PRESENT": NamedError(
        -7, "The driver lacks an extension that was requested.", "UnsupportedError"
    ),
    "VK_ERROR_INCOMPATIBLE_DRIVER": NamedError(-9, "No driver of this machine is compatible.", "UnsupportedError"),
    "VK_ERROR_TOO_MANY_OBJECTS": NamedError(
        -10, "The maximum number of handles or objects of this kind exists already.", "OutOfMemoryError"
    ),
    "VK_ERROR_FORMAT_NOT_SUPPORTED": NamedError(
        -11, "Images of this format, tiling and usage cannot be shared as this handle type.", "UnsupportedError"
    ),
    "VK_ERROR_UNKNOWN": NamedError(-13, "An error that the driver does not specify further.", "DriverError"),
    "VK_ERROR_INVALID_EXTERNAL_HANDLE": NamedError(
        -1000072003,
        "The handle, name, number or address does not refer to memory that can be imported as this type. The object "
        "manager's error, if there is one, has the reason.",
        "ObjectManagerError",
    ),
    "VK_ERROR_INVALID_OPAQUE_CAPTURE_ADDRESS": NamedError(
        -1000257000, "The memory cannot be placed at the captured address.", "DriverError"
    ),
}

STATUSES: dict[str, StatusText] = {
    "STATUS_OBJECT_NAME_COLLISION": StatusText(
        0xC0000035, 183, "ERROR_ALREADY_EXISTS", "The name belongs to a live object.", "NameTakenError"
    ),
    "STATUS_OBJECT_NAME_NOT_FOUND": StatusText(
        0xC0000034, 2, "ERROR_FILE_NOT_FOUND", "No live object has that name.", "NameNotFoundError"
    ),
    "STATUS_OBJECT_NAME_INVALID": StatusText(
        0xC0000033, 123, "ERROR_INVALID_NAME", "No object can have that name.", "NameInvalidError"
    ),
    "STATUS_OBJECT_PATH_NOT_FOUND": StatusText(
        0xC000003A, 3, "ERROR_PATH_NOT_FOUND", "There is no such namespace.", "NameNotFoundError"
    ),
    "STATUS_OBJECT_PATH_SYNTAX_BAD": StatusText(
        0xC000003B, 161, "ERROR_BAD_PATHNAME", "The name is not a path of the object directory.", "NameInvalidError"
    ),
    "STATUS_OBJECT_TYPE_MISMATCH": StatusText(
        0xC0000024, 6, "ERROR_INVALID_HANDLE", "The object is of another type.", "ObjectTypeError"
    ),
    "STATUS_INVALID_HANDLE": StatusText(
        0xC0000008, 6, "ERROR_INVALID_HANDLE", "This process has no such handle.", "InvalidHandleError"
    ),
    "STATUS_HANDLE_NOT_CLOSABLE": StatusText(
        0xC0000235, 6, "ERROR_INVALID_HANDLE", "The handle is protected from being closed.", "InvalidHandleError"
    ),
    "STATUS_ACCESS_DENIED": StatusText(
        0xC0000022, 5, "ERROR_ACCESS_DENIED", "The object's security or the handle's granted access does not allow it.",
        "AccessDeniedError",
    ),
    "STATUS_INVALID_PARAMETER": StatusText(
        0xC000000D, 87, "ERROR_INVALID_PARAMETER", "A value is not valid: a number that is not a KMT handle, say.",
        "InvalidHandleError",
    ),
    "STATUS_NOT_SAME_OBJECT": StatusText(
        0xC00001AC, 1656, "ERROR_NOT_SAME_OBJECT", "The two handles refer to two objects.", "ObjectManagerError"
    ),
    "STATUS_QUOTA_EXCEEDED": StatusText(
        0xC0000044, 1816, "ERROR_NOT_ENOUGH_QUOTA", "This client has reached its quota.", "QuotaError"
    ),
    "STATUS_INSUFFICIENT_RESOURCES": StatusText(
        0xC000009A, 1450, "ERROR_NO_SYSTEM_RESOURCES", "The object manager has no resources left.", "QuotaError"
    ),
    "STATUS_INVALID_CID": StatusText(
        0xC000000B, 87, "ERROR_INVALID_PARAMETER", "There is no such process.", "InvalidHandleError"
    ),
    "STATUS_INVALID_OWNER": StatusText(
        0xC000005A, 1307, "ERROR_INVALID_OWNER", "This user may not assign that owner to the object.",
        "SecurityDescriptorError",
    ),
    "STATUS_INVALID_SECURITY_DESCR": StatusText(
        0xC0000079, 1338, "ERROR_INVALID_SECURITY_DESCR", "The security descriptor is not valid.",
        "SecurityDescriptorError",
    ),
    "STATUS_UNKNOWN_REVISION": StatusText(
        0xC0000058, 1305, "ERROR_UNKNOWN_REVISION", "The security descriptor or SID is of an unknown revision.",
        "SecurityDescriptorError",
    ),
}  # fmt: skip
