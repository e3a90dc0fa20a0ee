"""The UDP telemetry of Codemasters' games, as ``extradata="3"`` makes it.

DiRT Rally 1 and 2, DiRT 4 and older F1 games speak it, and mods for GTA V.

All fields are little-endian float32. Games append different ones, so that only what all of them
have in common is read: position (4 to 6), speed (7), throttle (29), steering (30), brake (31).
"""

import struct

from charles.io.telemetry.packets import check_length, pedals, place, speed_of, within
from charles.io.telemetry.source import Reading

NAME = "codemasters"

LENGTHS = tuple(range(256, 281, 4))
"""DiRT's packets have 256 to 264 bytes, depending on the game; ikt32's mod for GTA V sends 280."""

_HEAD = struct.Struct("<16x4f84x3f")

_FIX = 'In hardware_settings_config.xml, udp must have enabled="true" and extradata="3".'


def decode(packet: bytes, received_ns: int) -> Reading:
    """The reading in one packet; steering as the sender has it, which is positive right in games.

    Args:
        packet: One datagram.
        received_ns: When it came, monotonic clock.

    Raises:
        GameProtocolError: The packet has another length, or a number cannot be what it is to be.
    """
    check_length(NAME, packet, LENGTHS, _FIX)
    x, y, z, speed, throttle, steering, brake = _HEAD.unpack_from(packet)
    return Reading(
        received_ns=received_ns,
        speed_mps=speed_of(NAME, speed),
        acceleration_braking=pedals(NAME, throttle, brake),
        steering=within(NAME, "steering", steering, -1.0, 1.0),
        location=place(NAME, x, y, z),
    )
