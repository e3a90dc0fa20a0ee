"""Games as far as their telemetry goes: packets made field by field, sent over real sockets.

Each packet is built from the published list of its fields, by index or in order, not with the
decoders' own offsets.
"""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Car:
    """What a sender tells, in a game's usual units; steering positive right."""

    speed: float = 12.5
    throttle: float = 0.75
    brake: float = 0.0
    steering: float = -0.25
    place: tuple[float, float, float] = (100.5, -20.25, 7.0)


def codemasters_packet(car: Car, *, length: int = 264) -> bytes:
    """As ``extradata="3"`` has it: float32 throughout, by index."""
    fields = [1000.0 + index for index in range(length // 4)]
    fields[4:7] = car.place
    fields[7] = car.speed
    fields[29], fields[30], fields[31] = car.throttle, car.steering, car.brake
    return struct.pack(f"<{len(fields)}f", *fields)


def forza_sled(car: Car, *, is_driving: bool = True) -> bytes:
    """232 bytes: flag, time, 51 floats of which the 7th to 9th are the velocity, 5 integers."""
    floats = [50.0 + index for index in range(51)]
    floats[6:9] = (0.6 * car.speed, 0.0, 0.8 * car.speed)
    return struct.pack("<iI51f5i", is_driving, 4_000_000_000, *floats, 1, 2, 800, 2, 6)


def forza_dash(car: Car) -> bytes:
    """79 bytes: position, speed, 13 floats, lap, position, pedals, gear, steering, two more."""
    others = [float(index) for index in range(13)]
    pedals = (round(255 * car.throttle), round(255 * car.brake))
    return struct.pack("<17fH6B3b", *car.place, car.speed, *others, 3, 4, *pedals, 255, 255, 5,
                       round(127 * car.steering), 11, -7)  # fmt: skip


def forza_packet(car: Car, *, length: int = 324, is_driving: bool = True) -> bytes:
    """One of the four kinds of packets, by its length."""
    sled, dash = forza_sled(car, is_driving=is_driving), forza_dash(car)
    if not is_driving:
        sled, dash = bytes(len(sled)), bytes(len(dash))
    parts = {
        232: [sled],
        311: [sled, dash],
        331: [sled, dash, struct.pack("<4fi", 0.1, 0.2, 0.3, 0.4, 1234)],
        324: [sled, struct.pack("<iff", 11, 0.5, 80.0), dash, b"\x01"],
    }[length]
    packet = b"".join(parts)
    assert len(packet) == length
    return packet


def trackmania_block(car: Car, *, is_finished: bool = False, rpm: float = 8543.25) -> bytes:
    """44 bytes: 11 float32."""
    return struct.pack("<11f", car.speed, 321.75, *car.place, car.steering, car.throttle, car.brake,
                       is_finished, 3.0, rpm)  # fmt: skip


def outgauge_packet(car: Car, *, has_id: bool = False) -> bytes:
    """92 bytes, or 96 with the id."""
    packet = struct.pack(
        "<I4sH2B7f2I3f16s16s", 0, b"beam", 49152, 3, 0,
        car.speed, 4200.0, 0.3, 90.0, 0.5, 0.0, 95.0, 0xFFFF, 1,
        car.throttle, car.brake, 0.9, b"Fuel 50%", b"",
    )  # fmt: skip
    return packet + (struct.pack("<i", 1) if has_id else b"")


def motion_sim_packet(car: Car) -> bytes:
    """88 bytes: a mark and 21 float32."""
    velocity = (0.6 * car.speed, -0.8 * car.speed, 0.0)
    return struct.pack("<4s21f", b"BNG1", *car.place, *velocity, *range(15))


class UdpSender:
    """A game that sends to a port. Use as a context."""

    def __init__(self, port: int) -> None:
        self._address = ("127.0.0.1", port)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def send(self, packet: bytes) -> None:
        self._socket.sendto(packet, self._address)

    def __enter__(self) -> "UdpSender":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


@contextlib.contextmanager
def repeating(
    sender: UdpSender, make: Callable[[], bytes], rate_hz: float = 60.0
) -> Iterator[None]:
    """Have a thread send what ``make`` returns, 60 times a second, until the context ends."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(1.0 / rate_hz):
            sender.send(make())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(5.0)


class TcpSender:
    """A game that is a server and serves one client at a time. Use as a context."""

    def __init__(self, port: int = 0) -> None:
        self._server = socket.create_server(("127.0.0.1", port))
        self._server.settimeout(10.0)
        self.port: int = self._server.getsockname()[1]
        self._client: socket.socket | None = None

    def accept(self) -> None:
        self.hang_up()
        self._client, _ = self._server.accept()
        self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes) -> None:
        assert self._client is not None
        self._client.sendall(data)

    def hang_up(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def __enter__(self) -> "TcpSender":
        return self

    def __exit__(self, *_: object) -> None:
        self.hang_up()
        self._server.close()
