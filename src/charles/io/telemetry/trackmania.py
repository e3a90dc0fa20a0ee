"""TrackMania 2020 through tmrl's plugin for OpenPlanet: a stream over TCP, the plugin being server.

A block is 11 little-endian float32: speed (m/s), distance travelled, position (3), steering, gas,
brake, whether the race is finished, gear, revolutions. Blocks follow each other without any mark
between them, so a stream that lost its step is put right by trying where blocks make sense.

Speed's unit and the places of distance, steering, gas and brake are known at second hand: compare
them with what the game shows before anything is learned from them.
"""

import struct

from charles.errors import GameProtocolError
from charles.io.telemetry.packets import check_length, pedals, place, speed_of, within
from charles.io.telemetry.source import Reading

NAME = "trackmania"

BLOCK = struct.Struct("<11f")

_TINY = 1e-30
"""No game's number is so small without being zero; bytes cut at the wrong place often are."""

_KEPT_BLOCKS = 4
"""How much of a stream out of step is looked at, at most."""

_WHOLE = {"finished": range(2), "gear": range(-1, 11)}
"""Fields that are whole numbers: they are what tells a block from the same bytes cut elsewhere."""

_MAX_RPM = 20_000.0


def decode(packet: bytes, received_ns: int) -> Reading:
    """The reading in one block.

    Args:
        packet: One block.
        received_ns: When it came, monotonic clock.

    Returns:
        The reading; without speed and controls once the race is finished.

    Raises:
        GameProtocolError: The block has another length, or a number cannot be what it is to be.
    """
    check_length(NAME, packet, (BLOCK.size,))
    values = BLOCK.unpack(packet)
    if any(0.0 < abs(value) < _TINY for value in values):
        raise GameProtocolError(f"{NAME}: numbers must be 0 or larger than {_TINY:g}.")
    speed, distance, x, y, z, steering, gas, brake, finished, gear, rpm = values
    for name, value in (("finished", finished), ("gear", gear)):
        allowed = _WHOLE[name]
        if value not in allowed:
            raise GameProtocolError(
                f"{NAME}: {name} must be a whole number in {allowed[0]}..{allowed[-1]}, "
                f"got {value!r}."
            )
    within(NAME, "revolutions", rpm, 0.0, _MAX_RPM)
    within(NAME, "distance", distance, -1e7, 1e7)
    speed_mps = speed_of(NAME, speed)
    pedal = pedals(NAME, gas, brake)
    steering = within(NAME, "steering", steering, -1.0, 1.0)
    location = place(NAME, x, y, z)
    if finished:
        return Reading(received_ns, None, None, None, location)
    return Reading(received_ns, speed_mps, pedal, steering, location)


class Blocks:
    """Cuts one connection's stream into blocks and reads the newest. Use from one thread."""

    def __init__(self) -> None:
        self._pending = b""

    def feed(self, data: bytes, received_ns: int) -> Reading | None:
        """Take what came; bounded, whatever comes.

        Returns:
            The reading of the newest whole block, or ``None`` while there is no new one.

        Raises:
            GameProtocolError: The newest block cannot be one, and no other way to cut the stream
                makes more sense so far. What comes next may be fed all the same.
        """
        self._pending += data
        whole = len(self._pending) // BLOCK.size * BLOCK.size
        if not whole:
            return None
        try:
            reading = decode(self._pending[whole - BLOCK.size : whole], received_ns)
        except GameProtocolError:
            dropped = max(whole - _KEPT_BLOCKS * BLOCK.size, 0)
            self._pending = self._pending[dropped:]
            start = self._new_start()
            if start is None:
                raise
            self._pending = self._pending[start:]
            return self.feed(b"", received_ns)
        self._pending = self._pending[whole:]
        return reading

    def _new_start(self) -> int | None:
        """Where blocks begin, if there is exactly one place from which two and more make sense."""
        starts = [start for start in range(1, BLOCK.size) if self._makes_sense(start)]
        return starts[0] if len(starts) == 1 else None

    def _makes_sense(self, start: int) -> bool:
        ends = range(start + BLOCK.size, len(self._pending) + 1, BLOCK.size)
        try:
            for end in ends:
                decode(self._pending[end - BLOCK.size : end], 0)
        except GameProtocolError:
            return False
        return len(ends) >= 2
