"""Draw into an image on a GPU and share it by handle; another process copies it to a buffer.

The image stays on the device. The consumer need not state any parameter: format, extent, usage and memory type come
with the payload, and the identical image is created from them.
"""

import multiprocessing

import extmem
from extmem import vk

TYPE = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_WIN32
GENERAL, UNDEFINED = vk.ImageLayout.GENERAL, vk.ImageLayout.UNDEFINED


def render(device: extmem.Device) -> tuple[extmem.Image, extmem.DeviceMemory]:
    usage = vk.ImageUsageFlagBits.TRANSFER_SRC | vk.ImageUsageFlagBits.TRANSFER_DST
    image = device.create_image(
        vk.ImageCreateInfo(
            image_type=vk.ImageType.TYPE_2D, format=vk.Format.R8G8B8A8_UNORM, extent=vk.Extent3D(64, 64, 1),
            mip_levels=1, array_layers=1, samples=vk.SampleCountFlagBits.COUNT_1, usage=usage,
            p_next=vk.ExternalMemoryImageCreateInfo(TYPE),
        )
    )  # fmt: skip
    needs = image.requirements
    memory_type = (needs.memory_type_bits & -needs.memory_type_bits).bit_length() - 1
    chain = vk.ExportMemoryAllocateInfo(TYPE, vk.MemoryDedicatedAllocateInfo(image, None))
    memory = device.allocate_memory(vk.MemoryAllocateInfo(needs.size, memory_type, chain))
    device.bind_image_memory(image, memory)
    with device.commands() as commands:
        commands.change_layout(image, UNDEFINED, GENERAL)
        commands.clear_color_image(image, (1.0, 0.5, 0.0, 1.0))  # in place of a renderer's work
        commands.release(image)  # to the next user, which acquires it
    return image, memory


def consume(frame: extmem.DeviceMemory) -> None:
    device, image = frame.device, frame.resource
    device.bind_image_memory(image, frame)
    with device.allocate((64, 64, 4)) as pixels:
        with device.commands() as commands:
            commands.acquire(image)
            commands.copy_image_to_buffer(image, pixels.buffer())
            commands.release(pixels.buffer())
        print("consumer:", device.name, "every pixel", pixels.read()[5, 5])
    frame.close()


if __name__ == "__main__":
    with extmem.open_device(kind="vulkan") as gpu:
        picture, shared = render(gpu)
        other = multiprocessing.get_context("spawn").Process(target=consume, args=(shared,))
        other.start()
        other.join()
        picture.close()
        shared.close()
