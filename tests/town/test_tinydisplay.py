"""Loading the software renderer with and without libX11, each in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

DRAW = """
import charles.town.tinydisplay as tiny
from panda3d import core
if {is_bare}:
    tiny._needs_private_copy = lambda: True
pipe = tiny.make_pipe()
assert tiny.make_pipe() is not None
engine = core.GraphicsEngine.get_global_ptr()
properties = core.FrameBufferProperties()
properties.set_rgb_color(True)
size = core.WindowProperties.size(32, 16)
buffer = engine.make_output(
    pipe, "b", 0, properties, size, core.GraphicsPipe.BF_refuse_window
)
texture = core.Texture()
buffer.add_render_texture(texture, core.GraphicsOutput.RTM_copy_ram)
buffer.set_clear_color((0.2, 0.4, 0.6, 1))
buffer.set_clear_color_active(True)
buffer.make_display_region().set_camera(core.NodePath("r").attach_new_node(core.Camera("c")))
engine.render_frame()
print(list(bytes(texture.get_ram_image())[:3]))
mapped = [line.split()[-1] for line in open("/proc/self/maps") if "libX11" in line]
print(len(mapped))
"""


def draw(*, is_bare: bool) -> list[str]:
    """Draw one frame in a fresh process; its first pixel and the number of libX11 mappings."""
    command = [sys.executable, "-c", DRAW.format(is_bare=is_bare)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")


@pytest.mark.skipif(sys.platform != "linux", reason="the private copy exists on Linux only")
def test_private_copy_draws_without_libx11():
    pixel, mapped, *_ = draw(is_bare=True)
    assert pixel == "[153, 102, 51]"
    assert mapped == "0"


@pytest.mark.skipif(sys.platform != "linux", reason="reads ELF libraries")
def test_blanking_changes_one_entry_and_leaves_the_file_alone():
    from panda3d import core

    from charles.town.tinydisplay import without_dependency

    library = Path(core.__file__).parent / "libp3tinydisplay.so"
    before = library.read_bytes()
    after = without_dependency(before, b"libX11.so.6")
    assert len(after) == len(before)
    assert sum(a != b for a, b in zip(before, after, strict=True)) <= 16
    assert without_dependency(before, b"libnothing.so") == before
    assert library.read_bytes() == before
