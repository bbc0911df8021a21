"""CUDA streams of the frameworks, as numbers."""

from __future__ import annotations

from typing import Any

__all__ = ["stream_address"]


def stream_address(stream: object) -> int:
    """Return the CUstream of a stream as a number.

    stream: an address, a stream of PyTorch, CuPy or cuda-core, or another object with `__cuda_stream__`. JAX has no
        objects for its streams: an array or a device of JAX stands for the stream that runs its later work. None is
        the default stream, 0.
    Errors: TypeError.
    """
    if stream is None:
        return 0
    if isinstance(stream, int) and not isinstance(stream, bool):
        return stream
    protocol: Any = getattr(stream, "__cuda_stream__", None)
    address = protocol()[1] if callable(protocol) else getattr(stream, "cuda_stream", getattr(stream, "ptr", None))
    if address is None:
        address = _of_jax(stream)
    if not isinstance(address, int):
        raise TypeError(
            f"{stream!r} is not a CUDA stream; pass the address of one, a stream of PyTorch, CuPy or cuda-core, or an "
            "array of JAX"
        )
    return address


def _of_jax(stream: object) -> object:
    """The stream of a JAX device, or of an array's only device: None for anything else."""
    for one in (stream, getattr(stream, "device", None)):
        external: Any = getattr(one, "get_stream_for_external_ready_event", None)
        if callable(external):
            return external()
    return None
