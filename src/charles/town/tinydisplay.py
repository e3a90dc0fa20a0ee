"""Loading Panda3D's software renderer, also where the system has no X libraries.

``libp3tinydisplay`` holds two pipes: one that draws into a window and one that draws into memory.
It is linked against libX11 for the sake of the first, so on a bare server the loader refuses both.
We need only the second. Where libX11 is missing, a private copy of the library is loaded whose
dependency entry on libX11 is blanked out and whose functions are bound at their first call.

Invariants: nothing in the package directory is changed; the copy is deleted as soon as it is
loaded; no X function is ever called, because only the memory pipe is made (calling one would abort
the process). All of the library's references to X are function calls, none are data (checked for
Panda3D 1.10.14 to 1.10.16); a later release that breaks this fails to load with a clear error.

References:
    System V ABI, "Dynamic Section", https://refspecs.linuxfoundation.org/elf/gabi4+/ch5.dynamic.html
"""

import ctypes
import ctypes.util
import os
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any

from charles.errors import GameError

PIPE_TYPE = "TinyOffscreenGraphicsPipe"

_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NEEDED, _DT_STRTAB, _DT_DEBUG = 1, 5, 21
_PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
_DYNAMIC_ENTRY = struct.Struct("<qQ")


def make_pipe() -> Any:
    """Panda3D's memory pipe, loading the software renderer first if need be.

    Returns:
        A ``panda3d.core.GraphicsPipe``.

    Raises:
        GameError: The renderer cannot be loaded.
    """
    from panda3d import core  # pyright: ignore[reportAttributeAccessIssue]

    core.load_prc_file_data("", "notify-level-display error")  # silence about pipes not wanted
    selection = core.GraphicsPipeSelection.get_global_ptr()
    if not _is_registered(core):
        if _needs_private_copy():
            _load_private_copy(Path(core.__file__).parent / "libp3tinydisplay.so")
        else:
            selection.make_module_pipe("p3tinydisplay")
    pipe = selection.make_pipe(core.TypeRegistry.ptr().find_type(PIPE_TYPE))
    if pipe is None:
        raise GameError(
            f"Town's renderer must offer {PIPE_TYPE}, got none from Panda3D "
            f"{core.PandaSystem.get_version_string()}. Reinstall it: pip install -U panda3d."
        )
    return pipe


def _is_registered(core: Any) -> bool:
    """Whether the memory pipe is known; asked so that no other pipe is loaded by the question."""
    return core.TypeRegistry.ptr().find_type(PIPE_TYPE).get_index() != 0


def _needs_private_copy() -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        ctypes.CDLL("libX11.so.6")
    except OSError:
        return True
    return False


def _load_private_copy(library: Path) -> None:
    image = without_dependency(library.read_bytes(), b"libX11.so.6")
    with tempfile.NamedTemporaryFile(suffix=".so") as copy:
        copy.write(image)
        copy.flush()
        try:
            ctypes.CDLL(copy.name, mode=ctypes.RTLD_GLOBAL | getattr(os, "RTLD_LAZY", 0))
        except OSError as error:
            raise GameError(
                f"Town's renderer could not be loaded without libX11: {error}. "
                "Install it: apt install libx11-6."
            ) from error


def without_dependency(image: bytes, name: bytes) -> bytes:
    """A 64-bit ELF library without its dependency on ``name``; every other byte stays.

    Args:
        image: The file's bytes; not changed.
        name: File name of the library that is not to be loaded along.
    """
    out = bytearray(image)
    if out[:6] != b"\x7fELF\x02\x01":
        raise GameError("Town's renderer must be a 64-bit little-endian ELF library.")
    (table,) = struct.unpack_from("<Q", out, 32)
    entry_size, count = struct.unpack_from("<HH", out, 54)
    headers = [_PROGRAM_HEADER.unpack_from(out, table + i * entry_size) for i in range(count)]
    loads = [(offset, address, size) for kind, _, offset, address, _, size, *_ in headers
             if kind == _PT_LOAD]  # fmt: skip
    start, size = next((h[2], h[5]) for h in headers if h[0] == _PT_DYNAMIC)
    places = range(start, start + size, _DYNAMIC_ENTRY.size)
    entries = [(place, *_DYNAMIC_ENTRY.unpack_from(out, place)) for place in places]
    strings = next(
        value - address + offset
        for _, tag, value in entries if tag == _DT_STRTAB
        for offset, address, length in loads if address <= value < address + length
    )  # fmt: skip
    for place, tag, value in entries:
        text = strings + value
        if tag == _DT_NEEDED and out[text : out.index(0, text)] == name:
            _DYNAMIC_ENTRY.pack_into(out, place, _DT_DEBUG, 0)
    return bytes(out)
