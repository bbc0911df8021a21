"""Writes `src/extmem/vk/_generated/` from the Vulkan registry. See README.md; run `python -m codegen`."""
