"""OutGauge over UDP: BeamNG and Live for Speed. Speed and pedals, but no steering and no position.

BeamNG can send its "MotionSim" packets to the same port; they tell speed and position, and are read
here too. Both little-endian.
"""

import struct

from charles.io.telemetry.packets import check_length, pedals, place, speed_of
from charles.io.telemetry.source import Reading

NAME = "outgauge"

LENGTHS = (92, 96)
"""Without and with the trailing id."""

MOTION_SIM = b"BNG1"
"""What a MotionSim packet begins with."""

MOTION_SIM_BYTES = 88

_SPEED_AT, _THROTTLE_AT = 12, 48
_MOTION = struct.Struct("<4x6f")


def decode(packet: bytes, received_ns: int) -> Reading:
    """The reading in one packet of OutGauge, or of BeamNG's MotionSim.

    Args:
        packet: One datagram.
        received_ns: When it came, monotonic clock.

    Raises:
        GameProtocolError: The packet has another length, or a number cannot be what it is to be.
    """
    if packet[:4] == MOTION_SIM:
        return _decode_motion(packet, received_ns)
    check_length(NAME, packet, LENGTHS)
    (speed,) = struct.unpack_from("<f", packet, _SPEED_AT)
    throttle, brake = struct.unpack_from("<2f", packet, _THROTTLE_AT)
    return Reading(
        received_ns=received_ns,
        speed_mps=speed_of(NAME, speed),
        acceleration_braking=pedals(NAME, throttle, brake),
        steering=None,
        location=None,
    )


def _decode_motion(packet: bytes, received_ns: int) -> Reading:
    name = f"{NAME} (MotionSim)"
    check_length(name, packet, (MOTION_SIM_BYTES,))
    x, y, z, *velocity = _MOTION.unpack_from(packet)
    return Reading(
        received_ns=received_ns,
        speed_mps=speed_of(name, *velocity),
        acceleration_braking=None,
        steering=None,
        location=place(name, x, y, z),
    )
