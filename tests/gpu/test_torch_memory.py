"""PyTorch's own memory on a real GPU, shared where it is: expandable segments, and pools of extmem's allocator."""

from __future__ import annotations

import gc
import textwrap
import threading
from typing import Any

import pytest

import extmem
from extmem.api import Device
from extmem.devices.host import loans
from extmem.testing.children import Child, Peer, RemoteError
from extmem.testing.waiting import wait_until

GIB = 1 << 30


def segments(code: str, deadline: int = 240) -> None:
    """Run code in a process of its own, since the settings of PyTorch's allocator are of the process."""
    with Child.python(textwrap.dedent(code)) as child:
        child.wait(deadline=deadline)
        assert child.output.split()[-1:] == ["done"], child.output


MOVED_NOTHING = """
    import extmem, extmem.torch, torch
    left = extmem.torch.make_shareable()
    assert left == [], left
    free = torch.cuda.mem_get_info()[0]
    big = torch.arange(1 << 29, dtype=torch.int64, device="cuda").view(1 << 14, 1 << 15)  # 4 GiB
    begin = free - torch.cuda.mem_get_info()[0]
    with extmem.share(big, "big", copy=False) as memory:
        assert memory.copied is False and len(memory.descriptor.part_sizes) > 100, memory.descriptor
        assert memory.shape == (1 << 14, 1 << 15) and memory.dtype == "int64"
        with extmem.open("big") as opened:
            moved = free - torch.cuda.mem_get_info()[0] - begin  # before the comparison, which needs memory itself
            assert abs(moved) < 64 << 20, moved
            assert torch.equal(opened.torch(), big)
    print("done")
"""


def test_a_tensor_of_4_gib_is_shared_without_a_copy(torch: Any) -> None:
    segments(MOVED_NOTHING)


def test_another_process_reads_it_and_sees_later_changes(torch: Any) -> None:
    segments(
        """
        import extmem, extmem.torch, torch
        from extmem.testing.children import Peer
        extmem.torch.make_shareable()
        values = torch.full((64 << 20,), 3, dtype=torch.uint8, device="cuda")
        with Peer() as peer, extmem.share(values[1024:], "seen", copy=False) as memory:
            peer("import extmem, torch\\nm = extmem.open('seen')\\nt = m.torch()")
            assert peer("t.shape[0], int(t.min()), int(t.max())") == ((64 << 20) - 1024, 3, 3)
            values.fill_(5)
            torch.cuda.synchronize()
            assert peer("int(t.min()), int(t.max())") == (5, 5)
            peer("del t\\nm.close()")
        print("done")
        """
    )


def test_500_rounds_of_freeing_emptying_and_killing_keep_the_contents(torch: Any) -> None:
    """The sharer frees the tensor, empties the cache and fills new ones; who has the payload reads the old values.

    In every 25th round another process has the payload, too, and is killed.
    """
    segments(
        """
        import os, extmem, extmem.torch, torch
        from extmem.devices.host import loans
        from extmem.testing.children import Peer
        from extmem.testing.waiting import wait_until
        extmem.torch.make_shareable()
        fds = len(os.listdir("/proc/self/fd"))
        for round in range(500):
            values = torch.full((3 << 20,), round % 251, dtype=torch.uint8, device="cuda")
            memory = extmem.share(values, "round", copy=False)
            opened = extmem.open("round")
            if round % 25 == 0:
                with Peer() as reader:
                    assert reader("m = extmem.open('round')\\nset(m.read_bytes(4096))") == {round % 251}
                    reader.kill()
            memory.close()
            del values
            torch.cuda.empty_cache()
            other = torch.full((3 << 20,), 255, dtype=torch.uint8, device="cuda")
            tensor = opened.torch()
            assert int(tensor.min()) == int(tensor.max()) == round % 251
            del tensor, other
            opened.close()
        wait_until(lambda: not loans.lent(), what="all loans have ended")
        torch.cuda.empty_cache()
        assert torch.cuda.memory_reserved() < 64 << 20
        assert len(os.listdir("/proc/self/fd")) < fds + 32
        print("done")
        """,
        deadline=500,
    )


def test_a_reader_that_is_killed_between_two_chunks_takes_nothing_along(torch: Any) -> None:
    segments(
        """
        import extmem, extmem.torch, torch
        from extmem.devices.host import loans
        from extmem.testing.children import Peer
        from extmem.testing.waiting import wait_until
        extmem.torch.make_shareable()
        values = torch.full((256 << 20,), 9, dtype=torch.uint8, device="cuda")
        free = None
        with extmem.share(values, "chunks", copy=False) as memory:
            assert len(memory.descriptor.part_sizes) > 10
            for at in (1, 5, 12):
                with Peer() as reader:
                    reader.start(
                        "import os, signal\\n"
                        "from cuda.bindings import driver\\n"
                        "before, left = driver.cuMemMap, [at]\\n"
                        "def map_until(*arguments):\\n"
                        "    left[0] -= 1\\n"
                        "    if not left[0]: os.kill(os.getpid(), signal.SIGKILL)\\n"
                        "    return before(*arguments)\\n"
                        "driver.cuMemMap = map_until\\n"
                        "extmem.open('chunks').device_array()",
                        at=at,
                    )
                    assert reader.wait(expect=None, deadline=60) == -9
                with Peer() as reader:
                    assert reader("m = extmem.open('chunks')\\nset(m.read_bytes())") == {9}
            assert int(values.min()) == int(values.max()) == 9
        del values
        wait_until(lambda: not loans.lent(), what="the loan has ended")
        print("done")
        """
    )


def test_a_stray_write_ends_the_context_of_the_reader_alone(torch: Any) -> None:
    """The default right is to read. A kernel that writes there faults, and the values stay what they were."""
    with extmem_pool():
        values = torch.full((8 << 20,), 4, dtype=torch.uint8, device="cuda")
    with extmem.share(values, "guarded", copy=False), Peer() as reader:
        reader("import torch\nm = extmem.open('guarded')\nt = m.torch()")
        assert reader("int(t.max())") == 4
        with pytest.raises(RemoteError, match="read-only"):
            reader("t.fill_(5)")
        stray = """
            class Plain: pass
            plain = Plain()
            plain.__cuda_array_interface__ = {
                'shape': (1 << 20,), 'typestr': '|u1', 'data': (t.data_ptr(), False), 'version': 3
            }
            torch.as_tensor(plain, device='cuda').fill_(5)
            torch.cuda.synchronize()
        """
        with pytest.raises(RemoteError, match="CUDA error"):
            reader(textwrap.dedent(stray))
        with pytest.raises(RemoteError):
            reader("int(t.max())")  # its context has ended
        assert int(values.min()) == int(values.max()) == 4
        with Peer() as other:
            assert other("m = extmem.open('guarded')\nset(m.read_bytes())") == {4}


STATE = """
    import extmem, extmem.torch, torch
    from extmem.testing.children import Peer
    torch.manual_seed(1)
    model = torch.nn.Sequential(*[torch.nn.Linear(512, 512) for _ in range(30)]).cuda()
    model[7].weight = model[3].weight  # tied
    state = model.state_dict()
    tree = {
        "state": state,
        "other": [state["0.weight"].t(), state["0.weight"][::2, 1:], torch.randn(2, 3, 8, 8, device="cuda").to(
            memory_format=torch.channels_last), state["0.bias"].expand(3, -1), torch.empty(0, 3, device="cuda"),
            torch.tensor(2.5, device="cuda").bfloat16()],
    }
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        late = torch.zeros(1 << 20, device="cuda")
        tree["late"] = late
        extmem.share(tree).close()  # loads the kernels that are needed
        torch.cuda._sleep(200_000_000)
        late.fill_(3)
        free = torch.cuda.mem_get_info()[0]
        memory = extmem.share(tree, "model")
        taken = free - torch.cuda.mem_get_info()[0]
    assert isinstance(memory.copied, str) and "one payload" in memory.copied, memory.copied
    assert taken <= 1.05 * memory.size + (4 << 20), (taken, memory.size)
    assert memory["state.7.weight"].offset == memory["state.3.weight"].offset
    with Peer() as reader:
        reader(
            "import torch\\nm = extmem.open('model')\\nt = m.torch()\\n"
            "sums = {name: float(t[name].double().sum()) for name in m}"
        )
        sums = reader("sums")
        for name, tensor in [*(("state." + k, v) for k, v in state.items()), *((f"other.{n}", v) for n, v in
                enumerate(tree["other"])), ("late", late)]:
            assert sums[name] == float(tensor.double().sum()), name
            found = reader(f"tuple(t[{name!r}].shape), str(t[{name!r}].dtype)")
            assert found == (tuple(tensor.shape), str(tensor.dtype)), name
        assert reader("t['state.7.weight'].data_ptr() == t['state.3.weight'].data_ptr()")
        assert reader("t['other.2'].is_contiguous(memory_format=torch.channels_last)")
    try:
        extmem.share(tree, "refused", copy=False)
    except extmem.UnsupportedError as error:
        assert "extmem.torch.pool()" in error.requires_one_of
    else:
        raise AssertionError("it was not refused")
    memory.close()
    print("done")
"""


def test_a_tree_of_tensors_is_one_payload_of_the_gpu(torch: Any) -> None:
    segments(STATE)


def test_a_strided_view_is_shared_where_it_is(torch: Any) -> None:
    with extmem_pool():
        whole = torch.arange(1 << 22, dtype=torch.int32, device="cuda").view(2048, 2048)
    for number, view in enumerate((whole[::3, 5::7], whole.t(), whole[1024:].t()[::2])):
        with extmem.share(view, f"view-{number}", copy=False) as memory, extmem.open(f"view-{number}") as opened:
            assert memory.copied is False and torch.equal(opened.torch(), view)
    with extmem.share(whole[:1].expand(4, -1)) as memory:
        assert memory.copied and torch.equal(memory.torch(), whole[:1].expand(4, -1))


def test_a_killed_reader_does_not_keep_the_tensor(torch: Any) -> None:
    segments(
        """
        import extmem, extmem.torch, torch, weakref
        from extmem.devices.host import loans
        from extmem.testing.children import Peer
        from extmem.testing.waiting import wait_until
        extmem.torch.make_shareable()
        values = torch.ones(8 << 20, device="cuda")
        with Peer() as peer:
            with extmem.share(values, "killed", copy=False):
                peer("import extmem\\nm = extmem.open('killed')\\nt = m.torch()")
            del values
            assert loans.lent()
            peer.kill()
        wait_until(lambda: not loans.lent(), what="the loan has ended")
        print("done")
        """
    )


def test_what_cannot_be_exported_is_copied_with_the_reason(torch: Any) -> None:
    values = torch.arange(1000, device="cuda")  # of cudaMalloc
    with extmem.share(values, "copied") as memory:
        assert isinstance(memory.copied, str) and "cudaMalloc" in memory.copied
        assert torch.equal(memory.torch(), values)
    with pytest.raises(extmem.UnsupportedError, match=r"extmem\.torch\.pool\(\)"):
        extmem.share(values, copy=False)


def test_without_handle_types_the_setting_is_named(torch: Any) -> None:
    code = """
        import extmem, extmem.torch, torch
        left = extmem.torch.make_shareable()
        assert left and "TORCH_CUDA_EXPANDABLE_SEGMENTS_IPC" in left[0].reason, left
        with extmem.share(torch.ones(5, device="cuda")) as memory:
            assert "TORCH_CUDA_EXPANDABLE_SEGMENTS_IPC" in memory.copied
        print("done")
    """
    environment = {"TORCH_CUDA_EXPANDABLE_SEGMENTS_IPC": "0"}
    with Child.python(textwrap.dedent(code), env=environment) as child:
        child.wait(deadline=120)
        assert child.output.split()[-1:] == ["done"], child.output


def test_make_shareable_lists_what_is_left_with_the_reason(torch: Any) -> None:
    segments(
        """
        import extmem, extmem.torch, torch
        old = torch.ones(3 << 20, device="cuda")
        left = extmem.torch.make_shareable()
        assert [one.address <= old.data_ptr() < one.address + (64 << 20) for one in left] == [True], left
        assert "cudaMalloc" in left[0].reason
        new = torch.ones(3 << 20, device="cuda")
        with extmem.share(new, copy=False) as memory:
            assert memory.copied is False
        del old
        assert extmem.torch.make_shareable() == []
        print("done")
        """
    )


def test_a_resized_tensor_is_stale(torch: Any) -> None:
    with extmem_pool():
        values = torch.ones(3 << 20, device="cuda")
    with extmem.share(values, copy=False) as memory:
        memory.record.check_source()
        values.set_(torch.zeros(3 << 20, device="cuda"))
        with pytest.raises(extmem.StaleSourceError):
            memory.record.check_source()


def extmem_pool() -> Any:
    import extmem.torch

    return extmem.torch.pool()


def test_a_pool_has_one_handle_for_4_gib(torch: Any, vulkan: Device) -> None:
    with extmem_pool():
        big = torch.full((4 * GIB,), 7, dtype=torch.uint8, device="cuda")
    with extmem.share(big, "pooled", copy=False) as memory, Peer() as peer:
        assert memory.descriptor.parts == ()
        assert peer("import extmem\nm = extmem.open('pooled')\nint(m.torch().min()), int(m.torch().max())") == (7, 7)
        peer("m.close()")
        with vulkan.open("pooled") as opened:
            assert set(opened.read_bytes(4 * GIB - 4096)) == {7}


def test_a_pool_outlives_its_tensors_and_gives_memory_back(torch: Any) -> None:
    before = torch.cuda.mem_get_info()[0]
    for _ in range(5):
        with extmem_pool():
            tensors = [torch.ones(64 << 20, device="cuda") for _ in range(4)]
        assert all(float(one.sum()) == 64 << 20 for one in tensors)
        del tensors
    gc.collect()
    torch.cuda.empty_cache()
    assert before - torch.cuda.mem_get_info()[0] < 128 << 20


def test_a_pool_in_eight_threads_while_others_free(torch: Any) -> None:
    """Threads with the GIL free tensors while the allocator of the pool is called: nobody waits for ever."""
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for round in range(50):
                with extmem_pool():
                    one = torch.full((1 << 20,), number, dtype=torch.uint8, device="cuda")
                assert int(one.max()) == number
                del one
                if round % 10 == 0:
                    torch.cuda.empty_cache()
        except BaseException as error:  # noqa: BLE001  # told below
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not errors and not any(thread.is_alive() for thread in threads), errors


def test_blocks_of_a_pool_are_nested_and_run_side_by_side(torch: Any) -> None:
    together = threading.Barrier(8, timeout=60)
    shared: list[bool | str] = []

    def work(number: int) -> None:
        with extmem_pool():
            together.wait()
            with extmem_pool():
                inner = torch.full((3 << 20,), number, dtype=torch.uint8, device="cuda")
            outer = torch.full((3 << 20,), number + 100, dtype=torch.uint8, device="cuda")
            together.wait()
        for tensor in (inner, outer):
            with extmem.share(tensor, copy=False) as memory:
                shared.append(memory.copied)
        assert int(inner.max()) == number and int(outer.min()) == number + 100

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert shared == [False] * 16


def test_a_pool_that_is_full_raises_pytorchs_error(torch: Any) -> None:
    with extmem_pool(), pytest.raises(torch.OutOfMemoryError):
        torch.empty(1 << 42, dtype=torch.uint8, device="cuda")
    with extmem_pool():
        assert float(torch.ones(4, device="cuda").sum()) == 4


def test_the_tensor_is_let_go_when_nobody_has_it(torch: Any) -> None:
    with extmem_pool():
        values = torch.ones(1 << 20, device="cuda")
    with extmem.share(values, "let-go", copy=False):
        opened = extmem.open("let-go")
    del values
    assert loans.lent()
    opened.close()
    wait_until(lambda: not loans.lent(), what="the loan has ended")
