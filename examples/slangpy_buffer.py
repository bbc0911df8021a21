"""Import a buffer of slangpy, in this and in another process. The fd is borrowed: slangpy still owns it."""

import importlib.util
import socket
import subprocess
import sys

import numpy as np

import extmem
from extmem import raw, vk

FD = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD
SHAPE, SIZE = (64, 64), 4 * 64 * 64


def describe(device: extmem.Device, fd: int) -> extmem.Descriptor:
    external, usage = vk.ExternalMemoryBufferCreateInfo(FD), vk.BufferUsageFlagBits(3)  # TRANSFER_SRC and TRANSFER_DST
    with device.create_buffer(vk.BufferCreateInfo(size=SIZE, usage=usage, p_next=external)) as similar:
        size = similar.requirements.size  # what the driver requires for such a buffer
    choices = raw.fd_choices(device, fd, memory_properties=vk.MemoryPropertyFlagBits.DEVICE_LOCAL)
    if not choices.memory_types:
        sys.exit(f"{device.name} has no memory type for this fd; was it exported by the same driver?")
    return extmem.Descriptor(
        handle_types=int(FD),
        allocation_size=size,
        memory_type_index=choices.memory_types[0],
        device_uuid=device.uuid,
        driver_uuid=device.identity.driver_uuid,
        array=extmem.ArrayInfo(SHAPE, "float32", (4 * SHAPE[1], 4)),
    )


def other_process() -> None:
    with socket.socket(fileno=int(sys.argv[1])) as sock, extmem.open(extmem.process.receive_handle(sock)) as memory:
        memory.write(2 * memory.read())


def main() -> None:
    if importlib.util.find_spec("slangpy") is None:
        sys.exit("this example needs slangpy: pip install slangpy")
    import slangpy

    theirs = slangpy.Device(type=slangpy.DeviceType.vulkan)
    usage = slangpy.BufferUsage.shared | slangpy.BufferUsage.copy_source | slangpy.BufferUsage.copy_destination
    buffer = theirs.create_buffer(size=SIZE, struct_size=4, usage=usage)
    buffer.copy_from_numpy(np.full(SHAPE, 21, "float32"))
    theirs.wait()
    fd = buffer.shared_handle.value  # slangpy closes it
    ours, child = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with extmem.open_device(kind="vulkan") as device, ours, child:
        stated = describe(device, fd)
        with raw.import_payload(device, fd, stated, borrow=True) as memory:
            print("extmem reads", memory.read()[0, :3], "of", memory.size, "bytes")
            raw.send_payload(ours, fd, stated)
            subprocess.run([sys.executable, __file__, str(child.fileno())], pass_fds=[child.fileno()], check=True)
            print("slangpy reads", buffer.to_numpy().view("float32").ravel()[:3], "after the other process")


other_process() if sys.argv[1:] else main()
