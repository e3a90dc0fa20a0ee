"""The car accelerates, brakes and turns as a car does, and never blows up."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charles.town.physics import MAX_WHEEL, STEP_S, WHEELBASE_M, CarState, steering_limit, step_car

START = CarState(0.0, 0.0, 0.0, 0.0, 0.0)
controls = st.floats(-1.0, 1.0)


def drive(car, steps, acceleration_braking, steering):
    for _ in range(steps):
        car = step_car(car, acceleration_braking, steering)
    return car


def test_full_acceleration_gains_about_four_metres_per_second_each_second():
    assert drive(START, 30, 1.0, 0.0).speed_mps == pytest.approx(4.0, abs=0.3)


def test_full_braking_stops_from_ten_metres_per_second_in_about_six_metres():
    car = drive(START._replace(speed_mps=10.0), 60, -1.0, 0.0)
    assert car.speed_mps == 0.0
    assert car.x == pytest.approx(10.0**2 / (2.0 * 8.0), abs=0.5)


def test_there_is_no_reverse_and_a_standing_car_stays_where_it_is():
    assert drive(START, 100, -1.0, 1.0)[:4] == (0.0, 0.0, 0.0, 0.0)
    assert drive(START, 100, 0.0, -1.0)[:4] == (0.0, 0.0, 0.0, 0.0)


def test_wheels_lag_behind_the_command():
    after_one = step_car(START, 0.0, 1.0)
    assert 0.05 < after_one.steering < 0.12
    assert drive(START, 30, 0.0, 1.0).steering == 1.0


def test_positive_steering_turns_right_on_the_circle_that_the_wheels_give():
    car = CarState(0.0, 0.0, 0.0, 3.0, 1.0)
    after = step_car(car, 0.0, 1.0)
    assert after.heading < 0.0
    rate = (after.heading - car.heading) / STEP_S
    slip = math.atan(0.5 * math.tan(MAX_WHEEL))
    expected = -3.0 * math.cos(slip) * math.tan(MAX_WHEEL) / WHEELBASE_M
    assert rate == pytest.approx(expected, rel=0.02)


def test_tyres_limit_the_turn_at_speed():
    car = drive(CarState(0.0, 0.0, 0.0, 15.0, 0.0), 30, 0.2, 1.0)
    lateral = car.speed_mps**2 * math.tan(car.steering * MAX_WHEEL) / WHEELBASE_M
    assert lateral < 8.0
    assert steering_limit(3.0) == 1.0
    assert steering_limit(25.0) < 0.1


@given(st.lists(st.tuples(controls, controls), min_size=1, max_size=120))
def test_any_controls_keep_the_state_finite_and_within_its_limits(commands):
    car = START._replace(speed_mps=12.0)
    for command in commands:
        before, car = car, step_car(car, *command)
        assert all(math.isfinite(v) for v in car)
        assert 0.0 <= car.speed_mps <= 25.0
        assert -1.0 <= car.steering <= 1.0
        assert -math.pi <= car.heading <= math.pi
        moved = math.hypot(car.x - before.x, car.y - before.y)
        assert moved <= 25.0 * STEP_S
