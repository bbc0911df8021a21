"""Win32 handle types by whose object the handle leads to, and by whether it is a handle at all."""

from __future__ import annotations

from extmem.vk._generated.flags import ExternalMemoryHandleTypeFlagBits as _Type

__all__ = ["BY_NUMBER", "FROM_D3D", "SIZED_BY_D3D"]

FROM_D3D = (_Type.D3D11_TEXTURE, _Type.D3D11_TEXTURE_KMT, _Type.D3D12_HEAP, _Type.D3D12_RESOURCE)
"""What leads to Direct3D's objects."""
BY_NUMBER = (_Type.OPAQUE_WIN32_KMT, _Type.D3D11_TEXTURE_KMT)
"""What is a KMT number: the same in every process, and owning nothing."""
SIZED_BY_D3D = (_Type.D3D11_TEXTURE, _Type.D3D11_TEXTURE_KMT, _Type.D3D12_RESOURCE)
"""What is as large as Direct3D made it: VkMemoryAllocateInfo::allocationSize is ignored."""
