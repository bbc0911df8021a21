"""Passing 4 GiB from Vulkan to PyTorch copies no bytes, in this process and to another; and a copy would be found."""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import pytest

from extmem import vk
from extmem.api import Device
from extmem.testing.children import Peer
from tests.gpu import copies
from tests.gpu.conftest import PAGE_TABLES, free_memory

SIZE = 4 << 30
EDGE = 4096
FD = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD
MINUTES = 300.0
Look: TypeAlias = Callable[[], None]


def both_ends(memory: Any) -> set[int]:
    return {*memory.read_bytes(0, EDGE), *memory.read_bytes(memory.size - EDGE)}


def elsewhere(peer: Peer, name: str, *, copying: bool) -> copies.Watched:
    answer = peer(
        "from tests.gpu import copies\ncopies.passed_elsewhere(name, copying)",
        name=name,
        copying=copying,
        deadline=MINUTES,
    )
    return copies.Watched(*answer)


def test_to_another_process_by_name(torch: Any, cuda: Device, vulkan: Device, peer: Peer, name: str) -> None:
    with vulkan.allocate(SIZE, name=name) as memory:
        memory.fill(7)
        peer("import torch\ntorch.zeros(1, device='cuda')\nNone", deadline=MINUTES)
        before = free_memory(cuda)
        seen = elsewhere(peer, name, copying=False)
        copies.moved_nothing(seen, PAGE_TABLES)
        assert both_ends(memory) == {8}, "the kernel worked on the memory itself"
        assert before - free_memory(cuda) < PAGE_TABLES + seen.taken


def test_by_an_fd_in_this_process(torch: Any, cuda: Device, vulkan: Device) -> None:
    with vulkan.allocate(SIZE, dedicated=False) as memory:
        memory.fill(7)
        for value in (8, 9):
            seen = copies.passed(torch, memory.export_handle(FD), device=cuda)
            copies.moved_nothing(seen, PAGE_TABLES)
            assert both_ends(memory) == {value}, "the kernel worked on the memory itself"


def test_to_another_process_a_copying_pass_is_seen(
    torch: Any, cuda: Device, vulkan: Device, peer: Peer, name: str
) -> None:
    with vulkan.allocate(SIZE, name=name) as memory:
        memory.fill(7)
        seen = elsewhere(peer, name, copying=True)
        assert seen.copied >= SIZE and seen.taken >= SIZE and seen.allocated >= SIZE
        with pytest.raises(AssertionError, match=r"copied: .*Memcpy"):
            copies.moved_nothing(seen, PAGE_TABLES)
        assert both_ends(memory) == {7}, "the kernel worked on the copy"


def test_each_sign_of_a_copy_is_enough() -> None:
    for seen, text in (
        (copies.Watched([("Memcpy DtoD (Device -> Device)", SIZE)], 1, 0, 0), "copied"),
        (copies.Watched([("Memcpy HtoD (Pageable -> Device)", 4)], 1, 0, 0), "copied"),
        (copies.Watched([], 1, SIZE, 0), "in use"),
        (copies.Watched([], 1, 0, SIZE), "allocated"),
    ):
        with pytest.raises(AssertionError, match=text):
            copies.moved_nothing(seen, PAGE_TABLES)
    copies.moved_nothing(copies.Watched([], 1, 0, 0), PAGE_TABLES)


def cloned(torch: Any, tensor: Any, look: Look) -> None:
    made = tensor.clone()
    made += 1
    look()


def copied(torch: Any, tensor: Any, look: Look) -> None:
    made = torch.empty_like(tensor)
    made.copy_(tensor)
    made += 1
    look()


def fetched(torch: Any, tensor: Any, look: Look) -> None:
    tensor[:EDGE].cpu()
    tensor.add_(1)
    look()


@pytest.mark.parametrize(
    ("work", "size", "word"), [(cloned, SIZE, "DtoD"), (copied, SIZE, "DtoD"), (fetched, EDGE, "DtoH")]
)
def test_copies_of_every_kind_are_seen(
    work: Callable[[Any, Any, Look], None], size: int, word: str, torch: Any, cuda: Device, vulkan: Device
) -> None:
    with vulkan.allocate(SIZE) as memory:
        tensor = memory.torch()
        seen = copies.watched(torch, partial(work, torch, tensor))
        assert seen.copied == size and word in seen.copies[0][0]
        with pytest.raises(AssertionError, match="copied"):
            copies.moved_nothing(seen, PAGE_TABLES)
        del tensor
        gc.collect()


def test_a_trace_without_a_kernel_proves_nothing(torch: Any) -> None:
    with pytest.raises(copies.NotWatchingError, match="no kernel"):
        copies.watched(torch, lambda look: look())
    with pytest.raises(copies.NotWatchingError, match="did not call its argument"):
        copies.watched(torch, lambda look: torch.zeros(8, device="cuda").add_(1))
