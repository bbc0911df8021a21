"""Commands that would access what they must not, in a process of their own: each is refused, none ends the process.

Each has a twin, the nearest valid command: it runs on the driver, and what it wrote is checked.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from extmem.testing.children import Peer
from tests.process.vulkan.commands_setup import ENVIRONMENT, SETTING

pytestmark = pytest.mark.linux_only("the scripted driver that stands in elsewhere has no depth, and is never slow")


@pytest.fixture
def child(vulkan_device: object) -> Iterator[Peer]:
    """A process with a Vulkan device of its own; it must end by itself, with exit code 0."""
    with Peer(env=ENVIRONMENT) as peer:
        peer(SETTING, kind="vulkan")
        yield peer
        peer("gc.collect()\nd.close()")
        peer.leave()


@pytest.fixture(params=["host", "vulkan"])
def either(request: pytest.FixtureRequest) -> Iterator[Peer]:
    """The same as `child`, on each kind of device."""
    if request.param == "vulkan":
        request.getfixturevalue("vulkan_device")
    with Peer() as peer:
        peer(SETTING, kind=request.param)
        yield peer
        peer("gc.collect()\nd.close()")
        peer.leave()


INSIDE = [
    # The create info of the image, how it is copied, and how many bytes that takes.
    ("width=2048, height=2048", "", 2048 * 2048 * 4),
    ("width=64, height=64", "", 64 * 64 * 4),
    ("width=64, height=64, mips=3", "mip_level=2", 16 * 16 * 4),
    ("width=9, height=7, layers=3", "array_layer=2", 9 * 7 * 4),
    ("F.R8_UNORM, 5, 3", "", 15),
    ("F.R16G16B16A16_SFLOAT", "", 64 * 8),
    ("F.BC1_RGB_UNORM_BLOCK, 10, 6", "", 3 * 2 * 8),
    ("width=16, height=1, kind=vk.ImageType.TYPE_1D", "", 16 * 4),
    ("F.D16_UNORM", "", 128),
    ("F.D32_SFLOAT", "", 256),
    ("F.D32_SFLOAT_S8_UINT", "aspect=A.DEPTH", 256),
    ("F.D32_SFLOAT_S8_UINT", "aspect=A.STENCIL", 64),
    ("F.S8_UINT", "", 64),
]


def test_copies_of_images_stay_inside_the_buffer(child: Peer) -> None:
    for made, how, size in INSIDE:
        child(f"i, m = image({made})")
        assert child(f"there_and_back(i, {size}, {how})"), f"{made}: {size} bytes"
        for small in (size - 1, 1, size // 2):
            child("b, n = buffer(small)", small=small)
            error = child.fails(f"run(lambda c: c.copy_image_to_buffer(i, b, {how}))")
            assert "VUID-vkCmdCopyImageToBuffer-pRegions-00183" in error.vuids, made
            error = child.fails(f"run(lambda c: c.copy_buffer_to_image(b, i, {how}))")
            assert "VUID-vkCmdCopyBufferToImage-pRegions-00171" in error.vuids, made
            child("close(b, n)")
        child("close(i, m)")


def test_offsets_levels_and_layers_are_the_images_and_the_buffers(child: Peer) -> None:
    child("i, m = image(mips=2, layers=2)\nb, n = buffer(512)\nn.write(some(512))")
    for how, vuid in (
        ("buffer_offset=260", "pRegions-00183"),
        ("buffer_offset=-4", "pRegions-00183"),
        ("buffer_offset=1 << 70", "pRegions-00183"),
        ("mip_level=2", "imageSubresource-07967"),
        ("mip_level=-1", "imageSubresource-07967"),
        ("array_layer=2", "imageSubresource-07968"),
        ("array_layer=1 << 40", "imageSubresource-07968"),
        ("buffer_offset=2", "srcImage-07975"),
    ):
        error = child.fails(f"run(lambda c: c.copy_image_to_buffer(i, b, {how}))")
        assert f"VUID-vkCmdCopyImageToBuffer-{vuid}" in error.vuids, how
    child("run(lambda c: c.copy_buffer_to_image(b, i, mip_level=1, array_layer=1, buffer_offset=448))")
    child("run(lambda c: c.copy_image_to_buffer(i, b, mip_level=1, array_layer=1))")
    assert child("n.tobytes()[:64] == some(512)[448:]")
    child("close(i, m, b, n)")


def test_images_of_several_samples_are_not_copied(child: Peer) -> None:
    child(
        "info = vk.ImageCreateInfo(image_type=vk.ImageType.TYPE_2D, format=F.R8G8B8A8_UNORM,\n"
        "    extent=vk.Extent3D(8, 8, 1), mip_levels=1, array_layers=1, samples=4,\n"
        "    usage=U.TRANSFER_SRC | U.TRANSFER_DST | U.COLOR_ATTACHMENT)\n"
        "i = d.create_image(info)\nm = allocate(i)\nd.bind_image_memory(i, m)\nb, n = buffer(4096)"
    )
    child("run(lambda c: (c.change_layout(i, L.UNDEFINED, L.GENERAL), c.clear_color_image(i, (0, 0, 0, 0))))")
    error = child.fails("run(lambda c: c.copy_image_to_buffer(i, b))")
    assert error.vuids == ("VUID-vkCmdCopyImageToBuffer-srcImage-07973",)
    error = child.fails("run(lambda c: c.copy_buffer_to_image(b, i))")
    assert error.vuids == ("VUID-vkCmdCopyBufferToImage-dstImage-07973",)
    child("close(i, m, b, n)")


def test_what_the_device_is_not_asked_about_is_refused_in_any_mode(child: Peer) -> None:
    """With any value of `check`: what only breaks a rule is allowed without checks, and runs."""
    child("i, m = image()\nb, n = buffer(64)\nq, r = buffer(64, B.TRANSFER_DST)")
    for mode in ("off", "warn"):
        child(f"d.check = {mode!r}")
        for work in (
            "c.copy_image_to_buffer(i, b)",
            "c.copy_buffer_to_image(b, i)",
            "c.copy_image_to_buffer(i, b, mip_level=9)",
            "c.copy_image_to_buffer(i, b, aspect=A.DEPTH)",
            "c.fill_buffer(b, 1, size=1 << 30)",
            "c.fill_buffer(b, 1, offset=1 << 40, size=4)",
            "c.copy_buffer(b, q, size=65)",
            "c.copy_buffer(b, q, size=-1)",
        ):
            assert child.fails(f"run(lambda c: {work})").is_a("RuleViolation"), work
    child("import warnings\nwarnings.simplefilter('ignore')\nd.check = 'warn'")
    child("r.write(some(64))\nrun(lambda c: c.copy_buffer(q, b))\nd.check = 'raise'")
    assert child("n.tobytes()[:64] == some(64)")
    assert "VUID-vkCmdCopyBuffer-srcBuffer-00118" in child.fails("run(lambda c: c.copy_buffer(q, b))").vuids
    child("close(i, m, b, n, q, r)")


def test_what_a_program_does_to_its_structs_afterwards_changes_nothing(child: Peer) -> None:
    """Commands are checked against what was created, and a barrier against its contents when it was recorded."""
    child(
        "info = vk.BufferCreateInfo(size=64, usage=B.TRANSFER_SRC | B.TRANSFER_DST)\nb = d.create_buffer(info)\n"
        "n = d.allocate_memory(vk.MemoryAllocateInfo(b.requirements.size, 0))\nd.bind_buffer_memory(b, n)\n"
        "info.size = 1 << 40"
    )
    assert "VUID-vkCmdFillBuffer-size-00027" in child.fails("run(lambda c: c.fill_buffer(b, 1, size=128))").vuids
    child(
        "i, m = image()\nwhole = vk.ImageSubresourceRange(A.COLOR, 0, 1, 0, 1)\n"
        "bar = vk.ImageMemoryBarrier(0, 0, L.GENERAL, L.GENERAL, 0, 0, i, whole)\n"
        "over = vk.BufferMemoryBarrier(0, 0, 0, 0, b, 0, 64)\n"
        "def work(c):\n"
        "    c.pipeline_barrier(S.TRANSFER, S.TRANSFER, image_memory_barriers=[bar], buffer_memory_barriers=[over])\n"
        "    c.fill_buffer(b, 0x01010101)\n"
        "    bar.new_layout, whole.base_mip_level, over.size, bar.image, over.buffer = 12345, 99, 1 << 60, 1, 1\n"
        "    b.close()\n"
        "run(work)"
    )
    assert child("n.tobytes()[:64] == bytes([1]) * 64 and b.closed")
    child("close(i, m, n)")


def test_commands_on_memory_that_is_closed_are_refused(either: Peer) -> None:
    """Closed before the block, or the resource destroyed or never bound: an error, and no call of the driver."""
    either("b, m = buffer(64)\ng, n = buffer(64)\nlate = d.create_buffer(b.create_info)\nm.close()")
    for work in (
        "c.fill_buffer(b, 1)",
        "c.copy_buffer(b, g)",
        "c.copy_buffer(g, b)",
        "c.acquire(b)",
        "c.release(b)",
        "c.pipeline_barrier(S.TRANSFER, S.TRANSFER, "
        "buffer_memory_barriers=[vk.BufferMemoryBarrier(0, 0, 0, 0, b, 0, 4)])",
    ):
        error = either.fails(f"run(lambda c: {work})")
        assert error.is_a("HandleStateError") and "memory that is closed" in error.message, work
    assert either.fails("run(lambda c: c.fill_buffer(late, 1))").is_a("HandleStateError")
    either("b.close()")
    assert "destroyed" in either.fails("run(lambda c: c.fill_buffer(b, 1))").message
    either("run(lambda c: c.fill_buffer(g, 0x2A2A2A2A))")
    assert either("n.tobytes()[:64] == bytes([42]) * 64")
    either("close(late, g, n)")


def test_what_recorded_commands_use_outlives_its_closing(either: Peer) -> None:
    """Between the call and the end of the block: by the same thread, and by another one."""
    either(
        "import threading\n"
        "b, m = buffer(64)\ng, n = buffer(64)\n"
        "def work(c):\n"
        "    c.fill_buffer(b, 0x07070707)\n"
        "    c.copy_buffer(b, g)\n"
        "    other = threading.Thread(target=close, args=(b, m))\n"
        "    other.start()\n"
        "    other.join()\n"
        "    c.copy_buffer(g, g, target_offset=32, size=32)\n"
        "run(work)"
    )
    assert either("m.closed and b.closed and n.tobytes()[:64] == bytes([7]) * 64")
    either("close(g, n)")


def test_memory_that_another_thread_closes_all_the_time(either: Peer) -> None:
    """A fill is either done, or refused with HandleStateError."""
    done, refused = either(
        "import threading\n"
        "done = refused = 0\n"
        "for turn in range(60):\n"
        "    b, m = buffer(1 << 16)\n"
        "    other = threading.Thread(target=m.close)\n"
        "    begun = turn % 2\n"
        "    if begun: other.start()\n"
        "    try:\n"
        "        run(lambda c: (c.fill_buffer(b, turn), None if begun else other.start(), c.fill_buffer(b, turn)))\n"
        "        done += 1\n"
        "    except extmem.HandleStateError:\n"
        "        refused += 1\n"
        "        if not begun and other.ident is None: other.start()\n"
        "    other.join()\n"
        "    b.close()\n"
        "done, refused"
    )
    assert done + refused == 60 and refused


BARS = "c.pipeline_barrier(S.TRANSFER, S.TRANSFER, image_memory_barriers=[vk.ImageMemoryBarrier(0, 0, L.GENERAL, "


def test_aspects_are_those_of_the_format(child: Peer) -> None:
    """change_layout, acquire and release apply to depth, stencil or both; a copy to one of them."""
    for made, aspects in (("D32_SFLOAT", "DEPTH"), ("S8_UINT", "STENCIL"), ("D32_SFLOAT_S8_UINT", "DEPTH STENCIL")):
        child(f"i, m = image(F.{made}, usage=U.TRANSFER_SRC | U.TRANSFER_DST | U.DEPTH_STENCIL_ATTACHMENT)")
        child(
            "run(lambda c: (c.change_layout(i, L.GENERAL, L.TRANSFER_DST_OPTIMAL), c.release(i, "
            "old_layout=L.TRANSFER_DST_OPTIMAL, new_layout=L.GENERAL)))\nrun(lambda c: c.acquire(i))"
        )
        for aspect in aspects.split():
            size = 64 if aspect == "STENCIL" else 256
            assert child(f"there_and_back(i, {size}, aspect=A.{aspect})")
        wrong = child.fails(
            f"run(lambda c: {BARS}L.GENERAL, 0, 0, i, vk.ImageSubresourceRange(A.COLOR, 0, 1, 0, 1))]))"
        )
        assert "VUID-VkImageMemoryBarrier-subresourceRange-09601" in wrong.vuids
        wrong = child.fails("run(lambda c: c.copy_image_to_buffer(i, b, aspect=A.COLOR))\n", b=None)
        assert wrong.is_a("TypeError")
        child("b, n = buffer(512)")
        wrong = child.fails("run(lambda c: c.copy_image_to_buffer(i, b, aspect=A.COLOR))")
        assert "VUID-vkCmdCopyImageToBuffer-imageSubresource-09105" in wrong.vuids
        wrong = child.fails("run(lambda c: c.clear_color_image(i, (0, 0, 0, 0)))")
        assert "VUID-vkCmdClearColorImage-image-00007" in wrong.vuids
        child("close(b, n, i, m)")
    child("i, m = image(F.D32_SFLOAT_S8_UINT)\nb, n = buffer(512)")
    wrong = child.fails("run(lambda c: c.copy_image_to_buffer(i, b))")
    assert "one of DEPTH, STENCIL" in wrong.message
    wrong = child.fails("run(lambda c: c.copy_image_to_buffer(i, b, aspect=A.DEPTH | A.STENCIL))")
    assert "VUID-VkBufferImageCopy-aspectMask-09103" in wrong.vuids
    half = "vk.ImageSubresourceRange(A.DEPTH, 0, 1, 0, 1)"
    wrong = child.fails(f"run(lambda c: {BARS}L.GENERAL, 0, 0, i, {half})]))")
    assert "VUID-VkImageMemoryBarrier-image-03320" in wrong.vuids
    child("close(b, n, i, m)")


def test_planes_are_copied_one_at_a_time(child: Peer) -> None:
    """Where the driver supports NV12 or P010; another driver refuses the image, and nothing else."""
    tried = 0
    for made, first, second in (
        ("G8_B8R8_2PLANE_420_UNORM", 64, 32),
        ("G10X6_B10X6R10X6_2PLANE_420_UNORM_3PACK16", 128, 64),
    ):
        has = child(
            f"try:\n    i, m = image(F.{made})\n    has = True\nexcept extmem.UnsupportedError:\n    has = False\nhas"
        )
        if not has:
            continue
        assert child(f"there_and_back(i, {first}, aspect=A.PLANE_0) and there_and_back(i, {second}, aspect=A.PLANE_1)")
        tried += 1
        child(
            "b, n = buffer(31)\nq, r = buffer(256)\nwhole = vk.ImageSubresourceRange(A.PLANE_0, 0, 1, 0, 1)\n"
            "part = vk.ImageMemoryBarrier(0, 0, L.GENERAL, L.GENERAL, 0, 0, i, whole)"
        )
        for work, vuid in (
            ("c.copy_image_to_buffer(i, b, aspect=A.PLANE_1)", "pRegions-00183"),
            ("c.copy_image_to_buffer(i, q, aspect=0)", "requiredbitmask"),
            ("c.copy_image_to_buffer(i, q, aspect=A.PLANE_2)", "vkCmdCopyImageToBuffer-srcImage-07981"),
            ("c.copy_buffer_to_image(q, i, aspect=A.COLOR)", "vkCmdCopyBufferToImage-dstImage-07981"),
            ("c.copy_image_to_buffer(i, q, aspect=A.PLANE_1, buffer_offset=1)", "srcImage-07976"),
            ("c.copy_buffer_to_image(q, i, aspect=A.PLANE_1, buffer_offset=1)", "dstImage-07976"),
            ("c.clear_color_image(i, (0,) * 4)", "vkCmdClearColorImage-image-01545"),
            (
                "c.pipeline_barrier(S.TRANSFER, S.TRANSFER, image_memory_barriers=[part])",
                "ImageMemoryBarrier-image-09242",
            ),
        ):
            error = child.fails(f"run(lambda c: {work})")
            assert any(vuid in broken for broken in error.vuids), work
        child("close(b, n, q, r, i, m)")
    if not tried:
        pytest.skip("this driver has no multi-planar images")


def test_layouts_are_those_that_the_image_has(child: Peer) -> None:
    """At each command, and at the end of the block, when others were submitted in between."""
    child("i, m = image()\nb, n = buffer(256)\nn.write(some(256))")
    for work, vuid in (
        ("c.change_layout(i, L.TRANSFER_SRC_OPTIMAL, L.GENERAL)", "VkImageMemoryBarrier-oldLayout-01197"),
        ("c.copy_buffer_to_image(b, i, layout=L.TRANSFER_DST_OPTIMAL)", "vkCmdCopyBufferToImage-dstImageLayout-00180"),
        ("c.copy_image_to_buffer(i, b, layout=L.TRANSFER_SRC_OPTIMAL)", "vkCmdCopyImageToBuffer-srcImageLayout-00189"),
        ("c.clear_color_image(i, (0,) * 4, layout=L.TRANSFER_DST_OPTIMAL)", "vkCmdClearColorImage-imageLayout-00004"),
        ("c.copy_image_to_buffer(i, b, layout=L.UNDEFINED)", "vkCmdCopyImageToBuffer-srcImageLayout-01397"),
        ("c.change_layout(i, L.GENERAL, L.UNDEFINED)", "VkImageMemoryBarrier-newLayout-01198"),
        ("c.change_layout(i, L.GENERAL, L.COLOR_ATTACHMENT_OPTIMAL)", "VkImageMemoryBarrier-oldLayout-01208"),
        ("c.change_layout(i, L.GENERAL, 77)", "VkImageMemoryBarrier-newLayout-parameter"),
    ):
        assert f"VUID-{vuid}" in child.fails(f"run(lambda c: {work})").vuids, work
    child(
        "def twice(c):\n"
        "    c.copy_buffer_to_image(b, i)\n"
        "    run(lambda other: other.change_layout(i, L.GENERAL, L.TRANSFER_DST_OPTIMAL))"
    )
    assert "VUID-vkCmdCopyBufferToImage-dstImageLayout-00180" in child.fails("run(twice)").vuids
    child(
        "def rightly(c):\n"
        "    c.copy_buffer_to_image(b, i, layout=L.TRANSFER_DST_OPTIMAL)\n"
        "    c.change_layout(i, L.TRANSFER_DST_OPTIMAL, L.TRANSFER_SRC_OPTIMAL)\n"
        "    c.fill_buffer(b, 0)\n"
        "    c.copy_image_to_buffer(i, b, layout=L.TRANSFER_SRC_OPTIMAL)\n"
        "run(rightly)"
    )
    assert child("n.tobytes()[:256] == some(256)")
    child("close(b, n, i, m)")


REFUSED = (
    ("c.fill_buffer(b, 1, size=0)", "vkCmdFillBuffer-size-00026"),
    ("c.fill_buffer(b, 1, size=6)", "vkCmdFillBuffer-size-00028"),
    ("c.fill_buffer(b, 1, offset=64)", "vkCmdFillBuffer-dstOffset-00024"),
    ("c.fill_buffer(b, 1, offset=3, size=4)", "vkCmdFillBuffer-dstOffset-00025"),
    ("c.copy_buffer(b, g, size=0)", "VkBufferCopy-size-01988"),
    ("c.copy_buffer(b, g, source_offset=64, size=1)", "vkCmdCopyBuffer-srcOffset-00113"),
    ("c.copy_buffer(b, g, target_offset=-1, size=1)", "vkCmdCopyBuffer-dstOffset-00114"),
    ("c.copy_buffer(b, g, source_offset=1, size=64)", "vkCmdCopyBuffer-size-00115"),
    ("c.copy_buffer(b, g, target_offset=1, size=64)", "vkCmdCopyBuffer-size-00116"),
    ("c.copy_buffer(b, b, target_offset=8, size=16)", "vkCmdCopyBuffer-pRegions-00117"),
    ("c.fill_buffer(source, 1)", "vkCmdFillBuffer-dstBuffer-00029"),
    ("c.copy_buffer(b, source)", "vkCmdCopyBuffer-dstBuffer-00120"),
    ("c.copy_buffer(target, b)", "vkCmdCopyBuffer-srcBuffer-00118"),
    ("over(c, offset=64)", "VkBufferMemoryBarrier-offset-01187"),
    ("over(c, size=0)", "VkBufferMemoryBarrier-size-01188"),
    ("over(c, offset=8, size=64)", "VkBufferMemoryBarrier-size-01189"),
)


def test_commands_on_buffers_stay_inside(either: Peer) -> None:
    """No bytes, too many, onto itself, or against a buffer's usage; and a valid one after each."""
    either(
        "b, m = buffer(64)\ng, n = buffer(64)\n"
        "source, o = buffer(64, B.TRANSFER_SRC)\ntarget, p = buffer(64, B.TRANSFER_DST)\n"
        "def over(c, offset=0, size=WHOLE):\n"
        "    bar = vk.BufferMemoryBarrier(0, 0, 0, 0, b, offset, size)\n"
        "    c.pipeline_barrier(S.TRANSFER, S.TRANSFER, buffer_memory_barriers=[bar])"
    )
    for number, (work, vuid) in enumerate(REFUSED, 1):
        error = either.fails(f"run(lambda c: {work})")
        assert f"VUID-{vuid}" in error.vuids, work
        either(f"run(lambda c: (over(c), c.fill_buffer(b, {number * 0x01010101}), c.copy_buffer(b, g)))")
        assert either(f"n.tobytes()[:64] == bytes([{number}]) * 64")
    for work in ("c.fill_buffer(b, 1, offset=1.0)", "c.fill_buffer(b, 1, size='4')", "c.copy_buffer(b, g, size=4.0)"):
        assert either.fails(f"run(lambda c: {work})").is_a("TypeError"), work
    either("close(b, m, g, n, source, o, target, p)")


def test_stages_and_accesses_are_the_devices(child: Peer) -> None:
    child("b, m = buffer(64)")
    nothing = (("0", "S.TRANSFER", "0", "srcStageMask-03937"), ("S.TRANSFER", "0", "0", "dstStageMask-03937"))
    if child("d.facts.synchronization2"):  # then a mask may be empty
        child("run(lambda c: c.pipeline_barrier(0, 0, memory_barriers=[vk.MemoryBarrier(0, 0)]))")
        nothing = ()
    for src, dst, access, vuid in (
        *nothing,
        ("S.TRANSFER", "S.GEOMETRY_SHADER", "0", "dstStageMask-04090"),
        ("S.MESH_SHADER_EXT", "S.TRANSFER", "0", "srcStageMask-04095"),
        ("1 << 30", "S.TRANSFER", "0", "srcStageMask-parameter"),
        ("S.TRANSFER", "S.TRANSFER", "X.SHADER_READ", "srcAccessMask-02815"),
    ):
        error = child.fails(
            f"run(lambda c: c.pipeline_barrier({src}, {dst}, memory_barriers=[vk.MemoryBarrier({access}, 0)]))"
        )
        assert f"VUID-vkCmdPipelineBarrier-{vuid}" in error.vuids
    child(
        "run(lambda c: (c.fill_buffer(b, 0x05050505), c.pipeline_barrier(S.TRANSFER, S.HOST | S.ALL_GRAPHICS, "
        "memory_barriers=[vk.MemoryBarrier(X.TRANSFER_WRITE, X.HOST_READ | X.SHADER_READ)])))"
    )
    assert child("m.tobytes()[:64] == bytes([5]) * 64")
    child("close(b, m)")
