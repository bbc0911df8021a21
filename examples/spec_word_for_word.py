"""Use the structures of VK_KHR_external_memory_win32: export with security, access and a name; import by both."""

import extmem
from extmem import vk

OPAQUE_WIN32 = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_WIN32
READ_WRITE = 0x80000001  # DXGI_SHARED_RESOURCE_READ | DXGI_SHARED_RESOURCE_WRITE
SIZE, MEMORY_TYPE = 65536, 0


def main() -> None:
    with extmem.open_device(kind="host") as device:
        attributes = vk.SecurityAttributes(None, inherit_handle=True)
        win32 = vk.ExportMemoryWin32HandleInfoKHR(attributes, READ_WRITE, "example-payload")
        export = vk.ExportMemoryAllocateInfo(OPAQUE_WIN32, win32)
        exporter = device.allocate_memory(vk.MemoryAllocateInfo(SIZE, MEMORY_TYPE, export))
        handle = device.get_memory_win32_handle(vk.MemoryGetWin32HandleInfoKHR(exporter, OPAQUE_WIN32))
        print(f"exported as {handle!r}: {handle.info.name}, access {handle.info.granted_access:#x}")

        by_name = vk.ImportMemoryWin32HandleInfoKHR(OPAQUE_WIN32, None, "example-payload")
        by_handle = vk.ImportMemoryWin32HandleInfoKHR(OPAQUE_WIN32, handle, None)
        importers = [
            device.allocate_memory(vk.MemoryAllocateInfo(SIZE, MEMORY_TYPE, by_name)),
            device.allocate_memory(vk.MemoryAllocateInfo(SIZE, MEMORY_TYPE, by_handle)),
        ]
        exporter.map()[:5] = b"hello"
        device.free_memory(exporter)  # the imports keep the payload
        print("read through both imports:", *(bytes(memory.map()[:5]) for memory in importers))

        wrong = vk.MemoryAllocateInfo(SIZE * 2, MEMORY_TYPE, by_handle)
        try:
            device.allocate_memory(wrong)
        except extmem.RuleViolation as error:
            print("refused:", error.vuids[0])

        for memory in importers:
            device.free_memory(memory)
        handle.close()  # an import does not consume an NT handle


if __name__ == "__main__":
    main()
