"""Hand-written calls that raise a rule: creating, importing and exporting semaphores and fences on the host device."""

from __future__ import annotations

from typing import Any

from extmem import vk
from extmem.testing import fake_vulkan
from tests.rules.raising import broken_by
from tests.rules.recipes_submit import Gpu
from tests.rules.recipes_world import HAS_FDS, RECIPES, Recipe, World, recipe

__all__ = ["OF_SYNC_FDS"]

S, F = vk.ExternalSemaphoreHandleTypeFlagBits, vk.ExternalFenceHandleTypeFlagBits
SCRIPTED: Any = fake_vulkan
TEMPORARY = vk.SemaphoreImportFlagBits.TEMPORARY
_FD, _WIN32 = "VkImportSemaphoreFdInfoKHR", "VkImportSemaphoreWin32HandleInfoKHR"
_FENCE_FD, _FENCE_WIN32 = "VkImportFenceFdInfoKHR", "VkImportFenceWin32HandleInfoKHR"
_GET_FD, _GET_WIN32 = "VkSemaphoreGetFdInfoKHR", "VkSemaphoreGetWin32HandleInfoKHR"
_GET_FENCE_FD, _GET_FENCE_WIN32 = "VkFenceGetFdInfoKHR", "VkFenceGetWin32HandleInfoKHR"


def semaphore(world: World, exported: int = 0, *, timeline: bool = False, name: str | None = None) -> Any:
    """A semaphore of the host device that can be exported as these types."""
    named = vk.ExportSemaphoreWin32HandleInfoKHR(None, 0x1F0003, name) if name is not None else None
    chain: Any = vk.ExportSemaphoreCreateInfo(exported, named) if exported else None
    if timeline:
        chain = vk.SemaphoreTypeCreateInfo(vk.SemaphoreType.TIMELINE, 0, chain)
    return world.keep(world.host.create_semaphore(vk.SemaphoreCreateInfo(0, chain)))


def fence(world: World, exported: int = 0, *, name: str | None = None) -> Any:
    """A fence of the host device that can be exported as these types."""
    named = vk.ExportFenceWin32HandleInfoKHR(None, 0x1F0003, name) if name is not None else None
    chain = vk.ExportFenceCreateInfo(exported, named) if exported else None
    return world.keep(world.host.create_fence(vk.FenceCreateInfo(0, chain)))


# Creating.

recipe("VkExportFenceCreateInfo-handleTypes-01446")(
    lambda world: broken_by(
        lambda: world.host.create_fence(
            vk.FenceCreateInfo(0, vk.ExportFenceCreateInfo(F.OPAQUE_WIN32 | F.OPAQUE_WIN32_KMT))
        )
    )
)

# Importing.


def import_fd(**asked: Any) -> Recipe:
    """Import an fd into a new binary semaphore."""

    def run(world: World) -> set[str]:
        known = {"semaphore": semaphore(world), "handle_type": S.OPAQUE_FD, "fd": 7, **asked}
        return broken_by(lambda: world.host.import_semaphore_fd(vk.ImportSemaphoreFdInfoKHR(**known)))

    return run


def import_fence_fd(**asked: Any) -> Recipe:
    """Import an fd into a new fence."""

    def run(world: World) -> set[str]:
        known = {"fence": fence(world), "handle_type": F.OPAQUE_FD, "fd": 7, **asked}
        return broken_by(lambda: world.host.import_fence_fd(vk.ImportFenceFdInfoKHR(**known)))

    return run


def import_win32(**asked: Any) -> Recipe:
    """Import a handle or name into a new binary semaphore."""

    def run(world: World) -> set[str]:
        known = {"semaphore": semaphore(world), "handle_type": S.OPAQUE_WIN32, **asked}
        info = vk.ImportSemaphoreWin32HandleInfoKHR(**known)
        return broken_by(lambda: world.host.import_semaphore_win32_handle(info))

    return run


def import_fence_win32(**asked: Any) -> Recipe:
    """Import a handle or name into a new fence."""

    def run(world: World) -> set[str]:
        known = {"fence": fence(world), "handle_type": F.OPAQUE_WIN32, **asked}
        return broken_by(lambda: world.host.import_fence_win32_handle(vk.ImportFenceWin32HandleInfoKHR(**known)))

    return run


_CHAINED = vk.SemaphoreTypeCreateInfo()
_WRONG: Any = vk.FenceCreateInfo()
for _make, _command, _struct, _types, _nothing in (
    (import_fd, "vkImportSemaphoreFdKHR-pImportSemaphoreFdInfo", _FD, "handleType-01143", {"fd": "seven"}),
    (import_fence_fd, "vkImportFenceFdKHR-pImportFenceFdInfo", _FENCE_FD, "handleType-01464", {"fd": "seven"}),
):
    recipe(f"{_struct}-pNext-pNext")(_make(p_next=_CHAINED))
    recipe(f"{_struct}-flags-parameter")(_make(flags=2))
    recipe(f"{_struct}-handleType-parameter")(_make(handle_type=3))
    recipe(f"{_struct}-{_types}")(_make(handle_type=S.OPAQUE_WIN32))
    recipe(f"{_command}-parameter")(_make(**_nothing))
for _make, _struct in ((import_win32, _WIN32), (import_fence_win32, _FENCE_WIN32)):
    recipe(f"{_struct}-pNext-pNext")(_make(name="raising", p_next=_CHAINED))
    recipe(f"{_struct}-flags-parameter")(_make(name="raising", flags=2))
recipe(f"{_WIN32}-handleType-01140")(import_win32(handle=0x1C, handle_type=S.OPAQUE_FD))
recipe(f"{_FENCE_WIN32}-handleType-01457")(import_fence_win32(handle=0x1C, handle_type=F.SYNC_FD))
recipe(f"{_WIN32}-handleType-01466")(import_win32(name="raising", handle_type=S.OPAQUE_WIN32_KMT))
recipe(f"{_FENCE_WIN32}-handleType-01459")(import_fence_win32(name="raising", handle_type=F.OPAQUE_WIN32_KMT))
recipe(f"{_WIN32}-handleType-01467")(import_win32(name="no semaphore"))
recipe(f"{_FENCE_WIN32}-handleType-01460")(import_fence_win32(name="no fence"))
recipe(f"{_WIN32}-handleType-01468")(import_win32(handle=0x7FFC))
recipe(f"{_FENCE_WIN32}-handleType-01461")(import_fence_win32(handle=0x7FFC))
recipe(f"{_WIN32}-handle-01469")(import_win32(handle=0x7FFC, name="raising"))
recipe(f"{_FENCE_WIN32}-handle-01462")(import_fence_win32(handle=0x7FFC, name="raising"))
recipe(f"{_FD}-handleType-07307")(import_fd(handle_type=S.SYNC_FD, fd=-1))
recipe(f"{_FENCE_FD}-handleType-07306")(import_fence_fd(handle_type=F.SYNC_FD, fd=-1))
recipe("vkImportSemaphoreWin32HandleKHR-pImportSemaphoreWin32HandleInfo-parameter")(
    lambda world: broken_by(lambda: world.host.import_semaphore_win32_handle(_WRONG))
)
recipe("vkImportFenceWin32HandleKHR-pImportFenceWin32HandleInfo-parameter")(
    lambda world: broken_by(lambda: world.host.import_fence_win32_handle(_WRONG))
)


@recipe(f"{_FD}-handleType-03264", f"{_FD}-flags-03323")
def _timeline_into_binary(world: World) -> set[str]:
    made = semaphore(world, S.OPAQUE_FD, timeline=True)
    fd = world.keep(world.host.get_semaphore_fd(vk.SemaphoreGetFdInfoKHR(made, S.OPAQUE_FD)))
    return import_fd(fd=fd, flags=TEMPORARY)(world)


@recipe(f"{_WIN32}-handleType-03262", f"{_WIN32}-flags-03322")
def _named_timeline_into_binary(world: World) -> set[str]:
    semaphore(world, S.OPAQUE_WIN32, timeline=True, name="raising a timeline")
    return import_win32(name="raising a timeline", flags=TEMPORARY)(world)


@recipe("vkImportSemaphoreFdKHR-semaphore-01142")
def _into_busy_semaphore(world: World) -> set[str]:
    gpu = Gpu(world)
    with gpu.held_up([gpu.binary]):
        info = vk.ImportSemaphoreFdInfoKHR(gpu.binary, TEMPORARY, S.SYNC_FD, -1)
        return broken_by(lambda: gpu.device.import_semaphore_fd(info))


@recipe("EXTMEM-vkImportSemaphoreWin32HandleKHR-semaphore-inUse")
def _into_busy_semaphore_by_name(world: World) -> set[str]:
    gpu = Gpu(world)
    with gpu.held_up([gpu.binary]):
        info = vk.ImportSemaphoreWin32HandleInfoKHR(gpu.binary, 0, S.OPAQUE_WIN32, None, "raising")
        return broken_by(lambda: gpu.device.import_semaphore_win32_handle(info))


@recipe("vkImportFenceFdKHR-fence-01463")
def _into_busy_fence(world: World) -> set[str]:
    gpu = Gpu(world)
    with gpu.held_up(fence=gpu.fence):
        info = vk.ImportFenceFdInfoKHR(gpu.fence, TEMPORARY, F.SYNC_FD, -1)
        return broken_by(lambda: gpu.device.import_fence_fd(info))


@recipe("vkImportFenceWin32HandleKHR-fence-04448")
def _into_busy_fence_by_name(world: World) -> set[str]:
    gpu = Gpu(world)
    with gpu.held_up(fence=gpu.fence):
        info = vk.ImportFenceWin32HandleInfoKHR(gpu.fence, 0, F.OPAQUE_WIN32, None, "raising")
        return broken_by(lambda: gpu.device.import_fence_win32_handle(info))


def _two_gpus(world: World) -> tuple[Any, Any]:
    """A scripted GPU, and another one with another driver."""
    return world.gpu(), world.gpu(device_uuid=b"another gpu 0001", driver_uuid=b"another driver 1")


@recipe(f"{_FD}-fd-01544")
def _fd_of_another_gpu(world: World) -> set[str]:
    gpu, other = _two_gpus(world)
    made = world.keep(gpu.create_semaphore(vk.SemaphoreCreateInfo(0, vk.ExportSemaphoreCreateInfo(S.OPAQUE_FD))))
    fd = world.keep(gpu.get_semaphore_fd(vk.SemaphoreGetFdInfoKHR(made, S.OPAQUE_FD)))
    into = world.keep(other.create_semaphore(vk.SemaphoreCreateInfo()))
    return broken_by(lambda: other.import_semaphore_fd(vk.ImportSemaphoreFdInfoKHR(into, 0, S.OPAQUE_FD, fd)))


@recipe(f"{_FENCE_FD}-fd-01541")
def _fence_fd_of_another_gpu(world: World) -> set[str]:
    gpu, other = _two_gpus(world)
    made = world.keep(gpu.create_fence(vk.FenceCreateInfo(0, vk.ExportFenceCreateInfo(F.OPAQUE_FD))))
    fd = world.keep(gpu.get_fence_fd(vk.FenceGetFdInfoKHR(made, F.OPAQUE_FD)))
    into = world.keep(other.create_fence(vk.FenceCreateInfo()))
    return broken_by(lambda: other.import_fence_fd(vk.ImportFenceFdInfoKHR(into, 0, F.OPAQUE_FD, fd)))


def _of_another_gpu(*, named: bool) -> Recipe:
    def run(world: World) -> set[str]:
        gpu, other = _two_gpus(world)
        name = "raising elsewhere"
        export = vk.ExportSemaphoreCreateInfo(
            S.OPAQUE_WIN32, vk.ExportSemaphoreWin32HandleInfoKHR(None, 0x1F0003, name)
        )
        made = world.keep(gpu.create_semaphore(vk.SemaphoreCreateInfo(0, export)))
        into = world.keep(other.create_semaphore(vk.SemaphoreCreateInfo()))
        info = vk.ImportSemaphoreWin32HandleInfoKHR(into, 0, S.OPAQUE_WIN32)
        if named:
            info.name = name
        else:
            asked = vk.SemaphoreGetWin32HandleInfoKHR(made, S.OPAQUE_WIN32)
            info.handle = world.keep(gpu.get_semaphore_win32_handle(asked))
        return broken_by(lambda: other.import_semaphore_win32_handle(info))

    return run


def _fence_of_another_gpu(*, named: bool) -> Recipe:
    def run(world: World) -> set[str]:
        gpu, other = _two_gpus(world)
        name = "raising elsewhere"
        export = vk.ExportFenceCreateInfo(F.OPAQUE_WIN32, vk.ExportFenceWin32HandleInfoKHR(None, 0x1F0003, name))
        made = world.keep(gpu.create_fence(vk.FenceCreateInfo(0, export)))
        info = vk.ImportFenceWin32HandleInfoKHR(world.keep(other.create_fence(vk.FenceCreateInfo())), 0, F.OPAQUE_WIN32)
        if named:
            info.name = name
        else:
            info.handle = world.keep(gpu.get_fence_win32_handle(vk.FenceGetWin32HandleInfoKHR(made, F.OPAQUE_WIN32)))
        return broken_by(lambda: other.import_fence_win32_handle(info))

    return run


recipe(f"{_WIN32}-handle-01542")(_of_another_gpu(named=False))
recipe(f"{_WIN32}-name-01543")(_of_another_gpu(named=True))
recipe(f"{_FENCE_WIN32}-handle-01539")(_fence_of_another_gpu(named=False))
recipe(f"{_FENCE_WIN32}-name-01540")(_fence_of_another_gpu(named=True))

# Exporting.


_SHARED = int(S.OPAQUE_FD if HAS_FDS else S.OPAQUE_WIN32)
"""A type that the host device of this system exports; of semaphores and of fences."""


def get_fd(exported: int = _SHARED, *, timeline: bool = False, **asked: Any) -> Recipe:
    """Export an fd of a new semaphore."""

    def run(world: World) -> set[str]:
        made = semaphore(world, exported, timeline=timeline)
        info = vk.SemaphoreGetFdInfoKHR(**{"semaphore": made, "handle_type": S.OPAQUE_FD, **asked})
        return broken_by(lambda: world.host.get_semaphore_fd(info))

    return run


def get_fence_fd(exported: int = _SHARED, **asked: Any) -> Recipe:
    """Export an fd of a new fence."""

    def run(world: World) -> set[str]:
        info = vk.FenceGetFdInfoKHR(**{"fence": fence(world, exported), "handle_type": F.OPAQUE_FD, **asked})
        return broken_by(lambda: world.host.get_fence_fd(info))

    return run


def get_win32(exported: int = S.OPAQUE_WIN32, *, again: bool = False, **asked: Any) -> Recipe:
    """Export a Win32 handle of a new semaphore."""

    def run(world: World) -> set[str]:
        made = semaphore(world, exported)
        info = vk.SemaphoreGetWin32HandleInfoKHR(**{"semaphore": made, "handle_type": S.OPAQUE_WIN32, **asked})
        if again:
            world.keep(world.host.get_semaphore_win32_handle(info))
        return broken_by(lambda: world.host.get_semaphore_win32_handle(info))

    return run


def get_fence_win32(exported: int = F.OPAQUE_WIN32, *, again: bool = False, **asked: Any) -> Recipe:
    """Export a Win32 handle of a new fence."""

    def run(world: World) -> set[str]:
        made = fence(world, exported)
        info = vk.FenceGetWin32HandleInfoKHR(**{"fence": made, "handle_type": F.OPAQUE_WIN32, **asked})
        if again:
            world.keep(world.host.get_fence_win32_handle(info))
        return broken_by(lambda: world.host.get_fence_win32_handle(info))

    return run


for _ask, _struct, _created, _form, _other in (
    (get_fd, _GET_FD, "handleType-01132", "handleType-01136", S.OPAQUE_WIN32),
    (get_win32, _GET_WIN32, "handleType-01126", "handleType-01131", S.OPAQUE_FD),
    (get_fence_fd, _GET_FENCE_FD, "handleType-01453", "handleType-01456", F.OPAQUE_WIN32),
    (get_fence_win32, _GET_FENCE_WIN32, "handleType-01448", "handleType-01452", F.OPAQUE_FD),
):
    recipe(f"{_struct}-pNext-pNext")(_ask(p_next=_CHAINED))
    recipe(f"{_struct}-handleType-parameter")(_ask(handle_type=0))
    recipe(f"{_struct}-{_created}")(_ask(0))
    recipe(f"{_struct}-{_form}")(_ask(handle_type=_other))
recipe("vkGetSemaphoreFdKHR-pGetFdInfo-parameter")(lambda world: broken_by(lambda: world.host.get_semaphore_fd(_WRONG)))
recipe("vkGetFenceFdKHR-pGetFdInfo-parameter")(lambda world: broken_by(lambda: world.host.get_fence_fd(_WRONG)))
recipe("vkGetSemaphoreWin32HandleKHR-pGetWin32HandleInfo-parameter")(
    lambda world: broken_by(lambda: world.host.get_semaphore_win32_handle(_WRONG))
)
recipe("vkGetFenceWin32HandleKHR-pGetWin32HandleInfo-parameter")(
    lambda world: broken_by(lambda: world.host.get_fence_win32_handle(_WRONG))
)
recipe(f"{_GET_WIN32}-handleType-01127")(get_win32(again=True))
recipe(f"{_GET_FENCE_WIN32}-handleType-01449")(get_fence_win32(again=True))
if HAS_FDS:
    recipe(f"{_GET_FD}-handleType-03253")(get_fd(S.OPAQUE_FD, timeline=True, handle_type=S.SYNC_FD))
    recipe(f"{_GET_FD}-handleType-01135", f"{_GET_FD}-handleType-03254")(get_fd(S.SYNC_FD, handle_type=S.SYNC_FD))
    recipe(f"{_GET_FENCE_FD}-handleType-01454")(get_fence_fd(F.SYNC_FD, handle_type=F.SYNC_FD))


def _elsewhere(get: str, imported: int) -> Recipe:
    """Export a payload that was imported as a type from which the device does not export the asked one."""

    def run(world: World) -> set[str]:
        host = world.host
        if get == "semaphore":
            made = semaphore(world, imported, name="raising" if imported == S.OPAQUE_WIN32 else None)
            into = semaphore(world)
            handle = world.keep(host.get_semaphore_win32_handle(vk.SemaphoreGetWin32HandleInfoKHR(made, imported)))
            host.import_semaphore_win32_handle(vk.ImportSemaphoreWin32HandleInfoKHR(into, 0, imported, handle))
            if imported == S.OPAQUE_WIN32:
                return broken_by(lambda: host.get_semaphore_fd(vk.SemaphoreGetFdInfoKHR(into, S.SYNC_FD)))
            info = vk.SemaphoreGetWin32HandleInfoKHR(into, S.OPAQUE_WIN32)
            return broken_by(lambda: host.get_semaphore_win32_handle(info))
        made, target = fence(world, imported), fence(world)
        handle = world.keep(host.get_fence_win32_handle(vk.FenceGetWin32HandleInfoKHR(made, imported)))
        host.import_fence_win32_handle(vk.ImportFenceWin32HandleInfoKHR(target, 0, imported, handle))
        if imported == F.OPAQUE_WIN32:
            return broken_by(lambda: host.get_fence_fd(vk.FenceGetFdInfoKHR(target, F.SYNC_FD)))
        again = vk.FenceGetWin32HandleInfoKHR(target, F.OPAQUE_WIN32)
        return broken_by(lambda: host.get_fence_win32_handle(again))

    return run


recipe(f"{_GET_WIN32}-semaphore-01128")(_elsewhere("semaphore", S.OPAQUE_WIN32_KMT))
recipe(f"{_GET_FENCE_WIN32}-fence-01450")(_elsewhere("fence", F.OPAQUE_WIN32_KMT))
if HAS_FDS:
    recipe(f"{_GET_FD}-semaphore-01133")(_elsewhere("semaphore", S.OPAQUE_WIN32))
    recipe(f"{_GET_FENCE_FD}-fence-01455")(_elsewhere("fence", F.OPAQUE_WIN32))


@recipe(f"{_GET_FD}-handleType-01134")
def _copied_while_waited_for(world: World) -> set[str]:
    gpu = Gpu(world, sync=SCRIPTED.SYNC_FILES)
    export = vk.ExportSemaphoreCreateInfo(S.SYNC_FD)
    made = world.keep(gpu.device.create_semaphore(vk.SemaphoreCreateInfo(0, export)))
    gpu.submit(signals=[made])
    with gpu.held_up():
        gpu.submit([(gpu.gate, 1), made])
        info = vk.SemaphoreGetFdInfoKHR(made, S.SYNC_FD)
        return broken_by(lambda: gpu.device.get_semaphore_fd(info))


_COPIES = ("semaphore-01133", "handleType-01134", "handleType-01135", "handleType-03253", "handleType-03254")
OF_SYNC_FDS = frozenset(
    (
        *(vuid for vuid in RECIPES if "ImportSemaphoreFd" in vuid or "ImportFenceFd" in vuid),
        *(f"VUID-{_GET_FD}-{tail}" for tail in _COPIES),
        *(f"VUID-{_GET_FENCE_FD}-{tail}" for tail in ("fence-01455", "handleType-01454")),
    )
)
"""Rules whose recipe takes file descriptors, which Windows does not have."""
