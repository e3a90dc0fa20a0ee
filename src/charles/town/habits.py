"""How Town answers a pad's axes, and how it can show and tell late. Plain functions and a line."""

import math
from collections import deque
from typing import Generic, TypeVar

from charles.pad_config import DeadZone

Item = TypeVar("Item")


def answer(axis: float, zone: DeadZone) -> float:
    """What the game makes of an axis: nothing inside the dead zone, no more beyond the limit."""
    size = min(abs(axis), zone.limit)
    if size <= zone.game:
        return 0.0
    share = (size - zone.game) / (1.0 - zone.game)
    return math.copysign(share ** (1.0 / zone.curve), axis)


class Late(Generic[Item]):
    """Hands out what it was given some instants ago; at first the oldest there is.

    Args:
        delay: How many instants ago.
    """

    def __init__(self, delay: int) -> None:
        self._items: deque[Item] = deque(maxlen=delay + 1)

    def add(self, item: Item) -> None:
        """This instant's."""
        self._items.append(item)

    @property
    def shown(self) -> Item | None:
        """What is handed out now; ``None`` before the first."""
        return self._items[0] if self._items else None

    def clear(self) -> None:
        """Forget the past, as after a reset."""
        self._items.clear()
