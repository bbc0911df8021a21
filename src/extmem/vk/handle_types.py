"""Groups of Win32 handle types: those of Direct3D, and those that are numbers instead of handles."""

from __future__ import annotations

from extmem.vk._generated.flags import ExternalMemoryHandleTypeFlagBits as _Type

__all__ = ["BY_NUMBER", "FROM_D3D", "SIZED_BY_D3D"]

FROM_D3D = (_Type.D3D11_TEXTURE, _Type.D3D11_TEXTURE_KMT, _Type.D3D12_HEAP, _Type.D3D12_RESOURCE)
"""Types that refer to objects of Direct3D."""
BY_NUMBER = (_Type.OPAQUE_WIN32_KMT, _Type.D3D11_TEXTURE_KMT)
"""Types that are KMT numbers, which are the same in every process and own nothing."""
SIZED_BY_D3D = (_Type.D3D11_TEXTURE, _Type.D3D11_TEXTURE_KMT, _Type.D3D12_RESOURCE)
"""Types whose size is that of the Direct3D object; VkMemoryAllocateInfo::allocationSize is ignored."""
