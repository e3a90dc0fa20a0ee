"""Receivers hand out the newest reading, outlive whatever is sent, and leave nothing behind."""

import contextlib
import os
import socket
import threading
import time

import pytest
from tests.io.telemetry.senders import (
    Car,
    TcpSender,
    UdpSender,
    codemasters_packet,
    forza_packet,
    outgauge_packet,
    trackmania_block,
)
from tests.ports import free_port

from charles.errors import ConfigError, GameError
from charles.io.telemetry import codemasters, trackmania
from charles.io.telemetry.make import make_telemetry
from charles.io.telemetry.receiver import TcpTelemetry, UdpTelemetry
from charles.io.telemetry.source import TelemetrySource
from charles.telemetry_config import USUAL_PORTS, TelemetryConfig
from charles.timing import clock_ns

PATIENCE_S = 20.0  # machines of tests are busy


def wait_for(is_so, what=""):
    give_up_s = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < give_up_s, f"not within {PATIENCE_S} s: {what}"
        time.sleep(0.005)


def wait_for_speed(telemetry, speed):
    def is_there():
        reading = telemetry.newest()
        return reading is not None and reading.speed_mps == speed

    wait_for(is_there, telemetry.explain())


@contextlib.contextmanager
def listening():
    before = threading.active_count()
    telemetry = UdpTelemetry("codemasters", codemasters.decode)
    with contextlib.closing(telemetry), UdpSender(telemetry.port) as game:
        yield telemetry, game
    telemetry.close()
    assert threading.active_count() == before


@contextlib.contextmanager
def connecting(port, **settings):
    before = threading.active_count()
    telemetry = TcpTelemetry("trackmania", lambda: trackmania.Blocks().feed, port=port, **settings)
    with contextlib.closing(telemetry):
        yield telemetry
    telemetry.close()
    assert threading.active_count() == before


def test_the_newest_reading_is_handed_out_with_its_time():
    with listening() as (telemetry, game):
        assert isinstance(telemetry, TelemetrySource)
        assert telemetry.newest() is None
        assert telemetry.explain() == f"nothing came from UDP port {telemetry.port} of 127.0.0.1"
        before_ns = clock_ns()
        for speed in (1.0, 2.0, 3.0):
            game.send(codemasters_packet(Car(speed=speed)))
        wait_for_speed(telemetry, 3.0)
        assert before_ns <= telemetry.newest().received_ns <= clock_ns()
        assert (telemetry.received, telemetry.malformed, telemetry.last_malformed) == (3, 0, "")
        assert "the last reading" in telemetry.explain()


def test_malformed_packets_are_counted_named_and_do_no_harm():
    good = codemasters_packet(Car(speed=4.0))
    bad = [b"", b"x", good[:-1], good + b"x", forza_packet(Car()), outgauge_packet(Car())]
    bad += [codemasters_packet(Car(speed=float("nan"))), os.urandom(9000), bytes(60_000)]
    with listening() as (telemetry, game):
        for packet in bad:
            game.send(packet)
        wait_for(lambda: telemetry.malformed == len(bad), telemetry.explain())
        assert telemetry.newest() is None
        assert "got 60000" in telemetry.last_malformed
        assert "what came from UDP port" in telemetry.explain()
        assert "extradata" in telemetry.explain()
        game.send(good)
        wait_for_speed(telemetry, 4.0)
        game.send(good[:100])
        wait_for(lambda: "got 100" in telemetry.last_malformed)
        assert telemetry.newest().speed_mps == 4.0
        assert telemetry.received == len(bad) + 2


def test_a_taken_port_and_a_foreign_address_are_named_with_the_fix():
    with listening() as (telemetry, _):
        taken = rf"UDP port {telemetry.port} of 127\.0\.0\.1 .*telemetry\.port"
        with pytest.raises(GameError, match=taken):
            UdpTelemetry("forza", codemasters.decode, port=telemetry.port)
    # Free again, once it is closed.
    UdpTelemetry("forza", codemasters.decode, port=telemetry.port).close()
    with pytest.raises(GameError, match=r"192\.0\.2\.1.*telemetry\.host"):
        UdpTelemetry("forza", codemasters.decode, host="192.0.2.1")


def test_a_stream_is_read_whole_block_by_whole_block():
    with TcpSender() as game, connecting(game.port) as telemetry:
        assert isinstance(telemetry, TelemetrySource)
        game.accept()
        data = b"".join(trackmania_block(Car(speed=float(speed))) for speed in range(1, 5))
        game.send(data[:100])
        wait_for_speed(telemetry, 2.0)
        game.send(data[100:])
        wait_for_speed(telemetry, 4.0)
        assert telemetry.malformed == 0


def test_a_stream_out_of_step_is_counted_and_found_again():
    with TcpSender() as game, connecting(game.port) as telemetry:
        game.accept()
        data = b"".join(trackmania_block(Car(speed=float(speed))) for speed in range(1, 40))
        for start in range(7, len(data), 44):
            game.send(data[start : start + 44])
            time.sleep(0.002)
        game.send(trackmania_block(Car(speed=77.0)))
        wait_for_speed(telemetry, 77.0)
        assert telemetry.malformed >= 1
        assert "trackmania" in telemetry.last_malformed


def test_a_lost_connection_is_made_again_and_begins_in_step():
    with TcpSender() as game, connecting(game.port) as telemetry:
        game.accept()
        game.send(trackmania_block(Car(speed=5.0)) + b"half a block")
        wait_for_speed(telemetry, 5.0)
        game.hang_up()
        wait_for(lambda: "closed the connection" in telemetry.explain(), telemetry.explain())
        game.accept()
        game.send(trackmania_block(Car(speed=6.0)))
        wait_for_speed(telemetry, 6.0)
        assert telemetry.connections == 2


def test_a_game_that_starts_later_is_found():
    port = free_port()
    with connecting(port) as telemetry:
        wait_for(lambda: "cannot connect" in telemetry.explain(), telemetry.explain())
        assert f"TCP port {port}" in telemetry.explain()
        with TcpSender(port) as game:
            game.accept()
            game.send(trackmania_block(Car(speed=8.0)))
            wait_for_speed(telemetry, 8.0)


def test_a_silent_connection_is_given_up_for_a_new_one():
    with TcpSender() as game, connecting(game.port, silence_s=0.2) as telemetry:
        game.accept()
        wait_for(lambda: "sent nothing for 0.2 s" in telemetry.explain(), telemetry.explain())
        game.accept()
        game.send(trackmania_block(Car(speed=9.0)))
        wait_for_speed(telemetry, 9.0)


@pytest.mark.parametrize("kind", ["codemasters", "forza", "outgauge"])
@pytest.mark.parametrize("is_left_positive", [False, True])
def test_every_protocol_over_udp_is_made_by_its_name(kind, is_left_positive):
    packet = {
        "codemasters": codemasters_packet,
        "forza": forza_packet,
        "outgauge": outgauge_packet,
    }[kind](Car(steering=-1.0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = TelemetryConfig(kind=kind, port=port, is_left_positive=is_left_positive)
    with contextlib.closing(make_telemetry(config)) as telemetry, UdpSender(port) as game:
        game.send(packet)
        wait_for_speed(telemetry, 12.5)
        expected = {False: -1.0, True: 1.0}[is_left_positive]
        assert telemetry.newest().steering == (None if kind == "outgauge" else expected)


@pytest.mark.parametrize("is_left_positive", [False, True])
def test_trackmania_is_made_by_its_name(is_left_positive):
    with TcpSender() as game:
        config = TelemetryConfig(
            kind="trackmania", port=game.port, is_left_positive=is_left_positive
        )
        with contextlib.closing(make_telemetry(config)) as telemetry:
            game.accept()
            game.send(trackmania_block(Car(steering=0.5)))
            wait_for_speed(telemetry, 12.5)
            assert telemetry.newest().steering == (-0.5 if is_left_positive else 0.5)


def test_none_makes_none_and_ports_are_the_usual_ones():
    assert make_telemetry(TelemetryConfig()) is None
    assert TelemetryConfig(kind="codemasters").used_port == USUAL_PORTS["codemasters"] == 20777
    assert TelemetryConfig(kind="codemasters", port=1234).used_port == 1234


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("telemetry.kind", {"kind": "f1"}),
        ("telemetry.host", {"host": ""}),
        ("telemetry.port", {"port": -1}),
        ("telemetry.port", {"port": 65536}),
        ("telemetry.port", {"kind": "forza", "port": 5250}),
        ("telemetry.timeout_s", {"timeout_s": 0.0}),
        ("telemetry.timeout_s", {"timeout_s": float("nan")}),
    ],
)
def test_impossible_settings_are_refused(name, values):
    with pytest.raises(ConfigError, match=name):
        TelemetryConfig(**values)
