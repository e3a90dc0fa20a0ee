"""Forza's "Data Out" over UDP, little-endian, told apart by the length of its packets.

=====  ==========================================  =================
bytes  game                                        dash begins at
=====  ==========================================  =================
232    "sled" of Forza Motorsport                  there is none
311    "dash" of Forza Motorsport 7                232
331    Forza Motorsport (2023)                     232
324    Forza Horizon 4, 5 and 6                    244
=====  ==========================================  =================

The sled, with which every packet begins, tells velocity but neither controls nor position.
"""

import struct

from charles.errors import GameProtocolError
from charles.io.telemetry.packets import check_length, place, speed_of
from charles.io.telemetry.source import Reading

NAME = "forza"

DASH_AT = {232: None, 311: 232, 331: 232, 324: 244}
"""Where the dash begins in a packet of each length, in bytes."""

_VELOCITY = struct.Struct("<3f")
_VELOCITY_AT = 32
_POSITION_SPEED = struct.Struct("<4f")
_ACCEL_BRAKE = struct.Struct("<2B")
_ACCEL_AT = 71
"""Into the dash; the brake follows, and the steering three bytes after that."""
_STEER = struct.Struct("<b")
_STEER_AT = 76

_FIX = "Choose the car dash format in the game's settings, which tells the controls."


def decode(packet: bytes, received_ns: int) -> Reading:
    """The reading in one packet.

    Args:
        packet: One datagram.
        received_ns: When it came, monotonic clock.

    Returns:
        The reading; nothing but its time while the game is in a menu or paused.

    Raises:
        GameProtocolError: The packet has another length, or a number cannot be what it is to be.
    """
    check_length(NAME, packet, tuple(DASH_AT), _FIX)
    (is_driving,) = struct.unpack_from("<i", packet)
    if is_driving not in (0, 1):
        raise GameProtocolError(f"{NAME}: IsRaceOn must be 0 or 1, got {is_driving}.")
    if not is_driving:
        return Reading(received_ns, None, None, None, None)
    dash = DASH_AT[len(packet)]
    if dash is None:
        speed_mps = speed_of(NAME, *_VELOCITY.unpack_from(packet, _VELOCITY_AT))
        return Reading(received_ns, speed_mps, None, None, None)
    x, y, z, speed = _POSITION_SPEED.unpack_from(packet, dash)
    accel, brake = _ACCEL_BRAKE.unpack_from(packet, dash + _ACCEL_AT)
    (steer,) = _STEER.unpack_from(packet, dash + _STEER_AT)
    return Reading(
        received_ns=received_ns,
        speed_mps=speed_of(NAME, speed),
        acceleration_braking=(accel - brake) / 255.0,
        steering=max(steer, -127) / 127.0,
        location=place(NAME, x, y, z),
    )
