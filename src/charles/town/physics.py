"""How a car moves: a kinematic bicycle with lagging front wheels. Pure functions over floats."""

import math
from typing import NamedTuple

from charles.town.geometry import wrap

STEP_S = 1.0 / 30.0
"""Simulated time per step."""
WHEELBASE_M = 2.7
LENGTH_M, WIDTH_M = 4.4, 1.9
MAX_WHEEL = math.radians(40.0)
"""Wheel angle at steering 1."""
STEERING_RATE = 2.4
"""Fastest change of the front wheels, in units of steering per second."""
ACCELERATION_MPS2, BRAKING_MPS2 = 4.0, 8.0
TOP_SPEED_MPS = 25.0
GRIP_MPS2 = 7.0
"""Largest lateral acceleration; beyond it the wheels do not turn further in."""


class CarState(NamedTuple):
    """A car's centre and motion."""

    x: float
    y: float
    heading: float
    speed_mps: float
    steering: float
    """Front wheels' angle over 40 degrees, in [-1, 1], positive right."""


def step_car(car: CarState, acceleration_braking: float, steering: float) -> CarState:
    """Move a car by one step of 1/30 s.

    Args:
        car: The car before the step.
        acceleration_braking: 1 accelerates with 4 m/s2, -1 brakes with 8 m/s2; braking ends at
            standstill, there is no reverse.
        steering: Where the front wheels should turn to, in [-1, 1], positive right.

    Returns:
        The car after the step.
    """
    limit = steering_limit(car.speed_mps)
    wanted = min(max(steering, -limit), limit)
    change = STEERING_RATE * STEP_S
    wheels = car.steering + min(max(wanted - car.steering, -change), change)
    speed = _step_speed(car.speed_mps, acceleration_braking)
    angle = -wheels * MAX_WHEEL
    slip = math.atan(0.5 * math.tan(angle))
    travel = 0.5 * (car.speed_mps + speed) * STEP_S
    turn = travel * math.cos(slip) * math.tan(angle) / WHEELBASE_M
    course = car.heading + slip + 0.5 * turn
    heading = car.heading + turn
    if not -math.pi <= heading < math.pi:
        heading = wrap(heading)  # which would cost other headings their last bits
    x, y = car.x + travel * math.cos(course), car.y + travel * math.sin(course)
    return CarState(x, y, heading, speed, wheels)


def reaches(turn: float) -> tuple[float, float]:
    """How near two cars' centres come along one of them and across it, the other turned to it."""
    cos, sin = abs(math.cos(turn)), abs(math.sin(turn))
    long = (LENGTH_M + LENGTH_M * cos + WIDTH_M * sin) / 2.0
    wide = (WIDTH_M + LENGTH_M * sin + WIDTH_M * cos) / 2.0
    return long, wide


def steering_limit(speed_mps: float) -> float:
    """Largest steering at which the tyres still hold at ``speed_mps``, in (0, 1]."""
    if speed_mps < 4.0:
        return 1.0
    return min(1.0, math.atan(WHEELBASE_M * GRIP_MPS2 / speed_mps**2) / MAX_WHEEL)


def _step_speed(speed: float, acceleration_braking: float) -> float:
    strength = ACCELERATION_MPS2 if acceleration_braking > 0.0 else BRAKING_MPS2
    gain = strength * acceleration_braking
    drag = 0.05 + 0.02 * speed + 0.001 * speed * speed if speed > 0.0 else 0.0
    return min(max(speed + (gain - drag) * STEP_S, 0.0), TOP_SPEED_MPS)
