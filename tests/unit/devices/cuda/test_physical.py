"""Finding CUDA devices: which exist, which is chosen, and why there is none."""

from __future__ import annotations

import gc
import os
import sys

import pytest

import extmem
from extmem.api import Device
from extmem.devices import cuda, select
from extmem.devices.cuda import handle_types
from extmem.testing import fake_cuda, fake_vulkan

TWO = [fake_cuda.Gpu(), fake_cuda.Gpu(name="Fake Second GPU", uuid=b"fake gpu 000000b")]


def test_a_gpu_is_listed_with_its_name_and_uuid(fake: fake_cuda.FakeCuda) -> None:
    [found] = cuda.offers()
    assert (found.kind, found.identity.device_name) == ("cuda", "Fake Discrete GPU")
    assert found.identity.device_uuid == fake_vulkan.DISCRETE.device_uuid
    assert found.identity.driver_version == "13.0" and found.identity.luid == (
        b"fakeluid" if handle_types.WIN32_IS_NATIVE else None
    )
    assert "cuPrimaryCtxRetain" not in fake.calls, "looking takes nothing"


def test_the_gpus_vulkan_device_comes_first_and_cuda_before_the_host(fake: fake_cuda.FakeCuda) -> None:
    assert [offer.kind for offer in select.enumerate_offers()] == ["vulkan", "cuda", "host"]


def test_a_device_is_opened_by_kind_uuid_and_name() -> None:
    with fake_cuda.installed(fake_cuda.FakeCuda(TWO)):
        for asked in ({"uuid": TWO[1].uuid}, {"kind": "cuda", "name": "second"}):
            with extmem.open_device(**asked) as opened:
                assert (opened.kind, opened.name, opened.backend.ordinal) == ("cuda", "Fake Second GPU", 1)  # type: ignore[attr-defined]


def test_the_environment_may_ask_for_cuda(fake: fake_cuda.FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXTMEM_DEVICE", "cuda")
    with extmem.open_device() as opened:
        assert opened.kind == "cuda"


def test_whoever_wants_vulkan_or_the_host_does_not_start_cuda(fake: fake_cuda.FakeCuda) -> None:
    for asked in ({"kind": "vulkan"}, {"kind": "host"}, {"uuid": fake_vulkan.DISCRETE.device_uuid}):
        extmem.open_device(**asked).close()  # type: ignore[arg-type]
    assert not fake.calls
    extmem.open_device(kind="cuda").close()
    assert "cuInit" in fake.calls


def test_without_cuda_bindings_the_error_states_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
    with cuda.replaced_by(None), pytest.raises(extmem.UnsupportedError, match=r"pip install 'extmem\[cuda\]'"):
        extmem.open_device(kind="cuda")


def test_without_a_driver_library_the_error_reports_it(fake: fake_cuda.FakeCuda) -> None:
    fake.missing = frozenset({"cuInit"})
    with pytest.raises(extmem.UnsupportedError, match="CUDA driver library is not here"):
        extmem.open_device(kind="cuda")
    assert "install NVIDIA's driver" in cuda.missing()


@pytest.mark.parametrize(
    ("result", "text"),
    [(34, "stub"), (100, "no GPU that CUDA can use"), (803, "restart")],
)
def test_a_driver_that_does_not_start_reports_why(result: int, text: str, fake: fake_cuda.FakeCuda) -> None:
    fake.fail(1, result, command="cuInit")
    with pytest.raises(extmem.UnsupportedError, match=text):
        extmem.open_device(kind="cuda")


def test_no_gpu_is_no_device() -> None:
    with fake_cuda.installed(fake_cuda.FakeCuda([])):
        assert not cuda.offers() and "CUDA_ERROR_NO_DEVICE" in cuda.missing()


def test_the_context_is_retained_while_it_is_needed_and_the_current_one_left_alone(fake: fake_cuda.FakeCuda) -> None:
    first = extmem.open_device(kind="cuda")
    second = extmem.open_device(kind="cuda")
    assert fake.contexts[0].retained == 2 and fake.stack == []
    with first.allocate((16,)) as memory:
        memory.fill(1)
        assert fake.stack == []
    first.close()
    assert fake.contexts[0].retained == 1
    second.close()
    assert fake.contexts[0].retained == 0


def test_what_was_current_before_is_current_again(fake: fake_cuda.FakeCuda, cuda: Device) -> None:
    context = fake.module.CUcontext(fake.contexts[0].handle)
    fake.module.cuCtxPushCurrent(context)
    with cuda.allocate((16,)) as memory:
        assert not memory.read().any()
    assert fake.stack == [0]
    fake.module.cuCtxPopCurrent()


def test_a_driver_that_is_closed_keeps_its_context_for_what_is_left(fake: fake_cuda.FakeCuda) -> None:
    [offer] = cuda.offers()
    backend = offer.open()
    allocation = backend.allocate(10, 0, b"")
    backend.close()
    assert fake.contexts[0].retained == 1
    with pytest.raises(extmem.HandleStateError, match="is closed"):
        backend.allocate(10, 0, b"")
    allocation.close()
    allocation.close()
    assert fake.contexts[0].retained == 0


def test_a_lost_driver_gives_its_context_back(fake: fake_cuda.FakeCuda) -> None:
    [offer] = cuda.offers()
    offer.open()
    gc.collect()
    assert fake.contexts[0].retained == 0


@pytest.mark.linux_only("Windows has no fork")
def test_a_forked_child_is_told_that_cuda_does_not_work_there(fake: fake_cuda.FakeCuda) -> None:
    with extmem.open_device(kind="cuda") as device, device.allocate((4,)) as memory:
        here, there = os.pipe()
        child = os.fork()
        if not child:
            messages = []
            asked = (lambda: extmem.open_device(kind="cuda"), lambda: device.allocate((4,)), memory.read)
            for attempt in (*asked, memory.device_array, memory.torch, memory.__dlpack__):
                try:
                    attempt()
                    messages.append("nothing")
                except extmem.ExtmemError as error:
                    messages.append(f"{type(error).__name__}: {error}")
                except BaseException as error:  # noqa: BLE001  # the child must end by itself
                    messages.append(repr(error))
            os.write(there, "\n".join(messages).encode())
            os._exit(0)
        os.close(there)
        os.waitpid(child, 0)
        with open(here, encoding="utf-8") as said:
            opened, *others = said.read().splitlines()
    assert opened.startswith("UnsupportedError") and "start children with spawn" in opened
    assert len(others) == 5
    assert all(other.startswith("HandleStateError") and "forked child" in other for other in others)
