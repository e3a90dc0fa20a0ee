"""Every protocol's packets are read to the bit; anything else is refused by name, and soon."""

import math
import struct
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.io.telemetry.senders import (
    Car,
    codemasters_packet,
    forza_packet,
    motion_sim_packet,
    outgauge_packet,
    trackmania_block,
)

from charles.errors import GameProtocolError
from charles.io.telemetry import codemasters, forza, outgauge, trackmania
from charles.io.telemetry.make import mirrored
from charles.io.telemetry.packets import MAX_SPEED_MPS

NOW_NS = 123_456_789
FEW = settings(max_examples=30, deadline=None)
DECODERS = {
    "codemasters": codemasters.decode,
    "forza": forza.decode,
    "trackmania": trackmania.decode,
    "outgauge": outgauge.decode,
}
LENGTHS = {
    "codemasters": {256, 260, 264, 268, 272, 276, 280},
    "forza": {232, 311, 331, 324},
    "trackmania": {44},
    "outgauge": {92, 96},
}
FLOATS = st.floats(0, 1, width=32)
CARS = st.builds(
    Car,
    speed=st.floats(0, MAX_SPEED_MPS, width=32),
    throttle=FLOATS,
    brake=FLOATS,
    steering=st.floats(-1, 1, width=32),
    place=st.tuples(*[st.floats(-1e5, 1e5, width=32)] * 3),
)


def numbers(car):
    return (car.speed, car.throttle, car.brake, car.steering, *car.place)


def check(reading, car, *, tells):
    assert reading.received_ns == NOW_NS
    for name, expected in (
        ("speed_mps", car.speed),
        ("acceleration_braking", car.throttle - car.brake),
        ("steering", car.steering),
        ("location", car.place),
    ):
        found = getattr(reading, name)
        if name not in tells:
            assert found is None
        elif name in ("speed_mps", "location"):
            assert found == pytest.approx(expected, rel=1e-6, abs=1e-30)
        else:
            assert found == pytest.approx(expected, abs=tells[name])


@FEW
@given(CARS, st.sampled_from(sorted(LENGTHS["codemasters"])))
def test_codemasters(car, length):
    packet = codemasters_packet(car, length=length)
    tells = {"speed_mps": 0, "acceleration_braking": 1e-7, "steering": 0, "location": 0}
    check(codemasters.decode(packet, NOW_NS), car, tells=tells)


@FEW
@given(CARS, st.sampled_from([311, 324, 331]))
def test_forza_dash_has_all_to_the_resolution_of_its_bytes(car, length):
    tells = {"speed_mps": 0, "acceleration_braking": 1.01 / 255, "steering": 0.51 / 127,
             "location": 0}  # fmt: skip
    check(forza.decode(forza_packet(car, length=length), NOW_NS), car, tells=tells)


@FEW
@given(CARS)
def test_forza_sled_has_the_speed_only(car):
    check(forza.decode(forza_packet(car, length=232), NOW_NS), car, tells={"speed_mps": 0})


@pytest.mark.parametrize("length", [232, 311, 324, 331])
def test_forza_in_a_menu_tells_of_no_driving(length):
    reading = forza.decode(forza_packet(Car(), length=length, is_driving=False), NOW_NS)
    assert reading == (NOW_NS, None, None, None, None)


def test_forza_full_left_is_minus_one_in_both_of_its_spellings():
    for steer in (-127, -128):
        packet = bytearray(forza_packet(Car(), length=324))
        struct.pack_into("<b", packet, 320, steer)
        assert forza.decode(bytes(packet), NOW_NS).steering == -1.0


@FEW
@given(CARS.filter(lambda car: all(not 0 < abs(value) < 1e-25 for value in numbers(car))))
def test_trackmania(car):
    tells = {"speed_mps": 0, "acceleration_braking": 1e-7, "steering": 0, "location": 0}
    check(trackmania.decode(trackmania_block(car), NOW_NS), car, tells=tells)


def test_trackmania_after_the_finish_tells_of_no_driving():
    reading = trackmania.decode(trackmania_block(Car(), is_finished=True), NOW_NS)
    assert reading == (NOW_NS, None, None, None, Car().place)


@FEW
@given(CARS, st.booleans())
def test_outgauge_has_no_steering(car, has_id):
    packet = outgauge_packet(car, has_id=has_id)
    tells = {"speed_mps": 0, "acceleration_braking": 1e-7}
    check(outgauge.decode(packet, NOW_NS), car, tells=tells)


@FEW
@given(CARS)
def test_motion_sim_has_speed_and_place(car):
    packet = motion_sim_packet(car)
    tells = {"speed_mps": 0, "location": 0}
    check(outgauge.decode(packet, NOW_NS), car, tells=tells)
    with pytest.raises(GameProtocolError, match=r"MotionSim.*88 bytes, got 87"):
        outgauge.decode(packet[:-1], NOW_NS)


@pytest.mark.parametrize("name", DECODERS)
def test_a_packet_of_another_length_is_refused_by_name_and_both_lengths(name):
    for length in {0, 1, 3, 4, 43, 1400, 65_507} | {each + 1 for each in LENGTHS[name]}:
        with pytest.raises(GameProtocolError, match=rf"^{name}: .* bytes, got {length}\.") as error:
            DECODERS[name](bytes(length), NOW_NS)
        assert all(str(each) in str(error.value) for each in LENGTHS[name])


@pytest.mark.parametrize("name", DECODERS)
@FEW
@given(data=st.data())
def test_any_bytes_give_a_sound_reading_or_a_named_refusal(name, data):
    length = data.draw(st.sampled_from(sorted(LENGTHS[name])))
    packet = data.draw(st.binary(min_size=length, max_size=length))
    if name == "forza":  # else nearly every packet ends at its first field
        packet = struct.pack("<i", 1) + packet[4:]
    reading, refusal = None, name
    try:
        reading = DECODERS[name](packet, NOW_NS)
    except GameProtocolError as err:
        refusal = str(err)
    assert refusal.startswith(name)
    if reading is None:
        return
    assert reading.speed_mps is None or 0.0 <= reading.speed_mps <= MAX_SPEED_MPS
    for control in (reading.acceleration_braking, reading.steering):
        assert control is None or -1.0 <= control <= 1.0
    assert reading.location is None or all(map(math.isfinite, reading.location))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e30])
@pytest.mark.parametrize("field", ["speed", "throttle", "brake", "steering", "place"])
def test_numbers_that_are_not_finite_or_far_out_of_range_are_refused(field, bad):
    car = replace(Car(), **{field: (1.0, bad, 2.0) if field == "place" else bad})
    shown = {"place": "position"}.get(field, field)
    for decode, packet, tells_all in (
        (codemasters.decode, codemasters_packet(car), True),
        (trackmania.decode, trackmania_block(car), True),
        (outgauge.decode, outgauge_packet(car), field in ("speed", "throttle", "brake")),
    ):
        if tells_all:
            with pytest.raises(GameProtocolError, match=f"{shown} must be finite and lie in"):
                decode(packet, NOW_NS)
    if field in ("speed", "place"):
        for decode, packet in (
            (forza.decode, forza_packet(car)),
            (outgauge.decode, motion_sim_packet(car)),
        ):
            with pytest.raises(GameProtocolError, match=f"{shown} must be finite"):
                decode(packet, NOW_NS)


def test_rounding_at_the_ends_of_a_range_is_clipped():
    car = Car(throttle=1.0001, steering=-1.0001)
    reading = codemasters.decode(codemasters_packet(car), NOW_NS)
    assert (reading.acceleration_braking, reading.steering) == (1.0, -1.0)


def test_a_codemasters_game_that_reverses_has_a_speed_over_ground():
    reading = codemasters.decode(codemasters_packet(Car(speed=-3.5)), NOW_NS)
    assert reading.speed_mps == 3.5


def test_a_sender_with_left_positive_steering_is_mirrored():
    # ikt32's mod for GTA V: 280 bytes, left positive.
    reading = mirrored(codemasters.decode)(codemasters_packet(Car(steering=0.5), length=280), 1)
    assert reading is not None
    assert reading.steering == -0.5
    assert mirrored(outgauge.decode)(outgauge_packet(Car()), 1) == outgauge.decode(
        outgauge_packet(Car()), 1
    )


def block(number, **fields):
    return trackmania_block(Car(speed=float(number), place=(700.0 + number, 9.5, 812.25), **fields))


def feed_all(blocks, data, size):
    """Feed in chunks; returns the readings, and how many chunks were refused."""
    readings, refused = [], 0
    for start in range(0, len(data), size):
        try:
            readings.append(blocks.feed(data[start : start + size], NOW_NS))
        except GameProtocolError:
            refused += 1
    return [each for each in readings if each is not None], refused


@FEW
@given(st.integers(1, 300), st.integers(1, 12))
def test_a_stream_in_step_is_read_however_it_is_cut(size, num):
    data = b"".join(block(number) for number in range(num))
    readings, refused = feed_all(trackmania.Blocks(), data, size)
    speeds = [each.speed_mps for each in readings]
    assert refused == 0
    assert speeds == sorted(speeds)
    assert speeds[-1] == num - 1
    if size <= 44:
        assert len(speeds) == num


@FEW
@given(st.integers(1, 43), st.integers(20, 200))
def test_a_stream_that_lost_bytes_finds_its_step_again(lost, size):
    data = b"".join(block(number) for number in range(30))
    readings, refused = feed_all(trackmania.Blocks(), data[lost:], size)
    assert readings[-1].speed_mps == 29
    # Two whole blocks are enough to see where they begin; until then nothing false is told.
    assert refused <= 1 + 132 // size
    assert all(each.speed_mps in range(1, 30) for each in readings)
    assert {each.steering for each in readings} == {-0.25}


def test_numbers_that_only_wrong_cuts_give_are_refused():
    with pytest.raises(GameProtocolError, match="0 or larger than"):
        trackmania.decode(trackmania_block(Car(throttle=1e-40)), NOW_NS)


def test_garbage_in_the_middle_costs_only_itself():
    blocks = trackmania.Blocks()
    garbage = struct.pack("<11f", *[math.nan] * 11)
    readings, refused = feed_all(blocks, block(1) + garbage + block(2) + block(3), 44)
    assert [each.speed_mps for each in readings] == [1, 2, 3]
    assert refused == 1
    readings, _ = feed_all(blocks, b"".join(block(each) for each in range(4, 9)), 44)
    assert [each.speed_mps for each in readings] == [4, 5, 6, 7, 8]


def test_endless_garbage_is_refused_in_bounded_memory():
    blocks = trackmania.Blocks()
    for _ in range(50):
        with pytest.raises(GameProtocolError, match="trackmania"):
            blocks.feed(b"\xff" * 4001, NOW_NS)
    assert len(blocks._pending) < 5 * 44
