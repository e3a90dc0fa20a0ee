"""From measurements of an axis to its dead zone, limit, curve and gains. Pure functions.

With dead zone ``d``, limit ``m``, curve ``g`` and gain ``k`` at speed ``v``, a game applies::

    k(v) * ((min(m, axis) - d) / (1 - d)) ** (1 / g)       0 for an axis below d

as :mod:`charles.io.deadzones` has it for ``k = 1``. For given ``d``, ``m`` and ``g`` the gains at
some speeds follow by least squares; the three are found on a grid that becomes finer. Errors count
by their size, not its square, and large ones no more than a tenth, so that a reading that was taken
while the car stood at a wall spoils nothing.
"""

from collections.abc import Sequence

import numpy as np

from charles.errors import CalibrationError
from charles.io.calibration import AxisCalibration
from charles.pad_config import DeadZone

LARGE = 0.1
"""An error beyond this counts no more."""

TYPICAL, WORST = 0.02, 0.08
"""Largest median error, and largest error of 19 in 20, of a fit that fits."""

LEAST_EFFECT = 0.1
"""An axis whose strongest answer is weaker does not answer."""

_STAGES = 9
_POINTS = 7
"""Refinements of the grid, each a third as wide, and its points along each of its sides."""
_TIE = 1e-4
"""How much an axis without limit and curve is preferred where errors are equal."""


def fit_axis(
    name: str, axis: np.ndarray, applied: np.ndarray, speed_mps: np.ndarray, knots: Sequence[float]
) -> AxisCalibration:
    """Dead zone, limit, curve and gains that explain what a game applied.

    Args:
        name: Of the axis, for error texts.
        axis: What the pad showed, ``[N]``, 0 to 1; both sides of a stick as one.
        applied: What the game then applied, ``[N]``, on the same side as the axis.
        speed_mps: How fast the car was, ``[N]``.
        knots: Rising speeds at which gains are wanted, one or more.

    Raises:
        CalibrationError: There are too few measurements, or the game did not answer.
    """
    axis, applied = np.asarray(axis, float), np.asarray(applied, float)
    if len(axis) < 6:
        raise CalibrationError(
            f"{name} must have 6 measurements or more, got {len(axis)}. Try more --levels."
        )
    strongest = float(applied.max())
    if strongest < LEAST_EFFECT:
        raise CalibrationError(
            f"{name}: the game must apply what the pad shows, but applied {strongest:.3f} at most. "
            "Does it read this pad (--pad.kind), and does it tell its controls?"
        )
    basis = _hats(np.asarray(speed_mps, float), np.asarray(knots, float))
    best = _search(axis, applied, basis)
    _, gains, errors = _solve(best[None], axis, applied, basis)
    sizes = np.abs(errors[0])
    typical, worst = float(np.median(sizes)), float(np.quantile(sizes, 0.95))
    dead, limit, curve = best.tolist()
    return AxisCalibration(
        zone=DeadZone(game=round(dead, 4), limit=round(limit, 4), curve=round(curve, 3)),
        gains=tuple(
            (float(knot), round(float(gain), 4)) for knot, gain in zip(knots, gains[0], strict=True)
        ),
        residual=round(typical, 5),
        worst=round(worst, 5),
        num=len(axis),
        does_fit=typical <= TYPICAL and worst <= WORST and bool((gains > 0.05).all()),
    )


def _hats(speed_mps: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """How much each knot's gain counts at each speed, ``[N, K]``; rows sum to 1."""
    return np.stack([np.interp(speed_mps, knots, row) for row in np.eye(len(knots))], axis=1)


def _search(axis: np.ndarray, applied: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """The best dead zone, limit and curve, ``[3]``."""
    low, high = np.array([0.0, 0.5, -1.4]), np.array([0.9, 1.0, 1.4])  # the curve's logarithm
    centre, half = 0.5 * (low + high), 0.5 * (high - low)
    best, least = centre, np.inf
    points = 2 * _POINTS + 1  # the first grid must not overlook the valley
    for _ in range(_STAGES):
        sides = [
            np.unique(np.clip(np.linspace(c - h, c + h, points), a, b))
            for c, h, a, b in zip(centre, half, low, high, strict=True)
        ]
        grid = np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1).reshape(-1, 3)
        grid = grid[grid[:, 1] > grid[:, 0] + 0.05]
        found = grid * [1.0, 1.0, 0.0] + np.exp(grid) * [0.0, 0.0, 1.0]
        losses, _, _ = _solve(found, axis, applied, basis)
        losses = losses + _TIE * (1.0 - grid[:, 1]) + _TIE * np.abs(grid[:, 2])
        number = int(np.argmin(losses))
        if losses[number] < least:
            least, best = float(losses[number]), grid[number]
        centre, half, points = best, half / 2.5, _POINTS
    return np.array([best[0], best[1], np.exp(best[2])])


def _solve(
    zones: np.ndarray, axis: np.ndarray, applied: np.ndarray, basis: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each of ``zones`` ``[G, 3]``: loss ``[G]``, gains ``[G, K]`` and errors ``[G, N]``."""
    dead, limit, curve = (zones[:, i, None] for i in range(3))
    share = np.maximum(np.minimum(axis, limit) - dead, 0.0) / (1.0 - dead)
    effect = share ** (1.0 / curve)
    weight = np.ones_like(effect)
    least = 1e-9 * np.eye(basis.shape[1])
    gains = errors = np.zeros(0)
    for _ in range(4):  # towards the least sum of sizes instead of squares
        left = np.einsum("gn,nk,nl->gkl", weight * effect**2, basis, basis, optimize=True)
        right = np.einsum("gn,nk->gk", weight * effect * applied, basis)
        gains = np.linalg.solve(left + least, right[..., None])[..., 0]
        errors = effect * (gains @ basis.T) - applied
        weight = 1.0 / np.maximum(np.abs(errors), 1e-3)
    losses = np.minimum(np.abs(errors), LARGE).mean(axis=1)
    return losses, gains, errors
