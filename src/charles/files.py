"""Files that are there whole or not at all."""

import sys
import time
from pathlib import Path

_TRIES, _BETWEEN_S = 100, 0.02
"""How often, and how far apart, Windows is asked again for a file that somebody reads."""


def write_whole(path: Path, text: str) -> None:
    """Write a text file; whoever reads it finds the old one or the new one, never a part.

    Args:
        path: Where; its directory exists.
        text: All of it.

    Raises:
        OSError: It cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    put_in_place(partial, path)


def put_in_place(partial: Path, path: Path) -> None:
    """Rename a file that is whole now, over one that may be there.

    Windows refuses that while anybody has either of them open, an indexer or a virus scanner too;
    it is asked again for two seconds.

    Raises:
        OSError: It cannot be renamed.
    """
    tries = _TRIES if sys.platform == "win32" else 1
    for left in reversed(range(tries)):
        try:
            partial.replace(path)
        except PermissionError:
            if not left:
                raise
            time.sleep(_BETWEEN_S)
        else:
            return
