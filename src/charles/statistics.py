"""Bootstrap intervals over routes.

Routes are the unit of chance: what happens within one drive hangs together, so whole routes are
drawn with replacement, never single frames. A seeded generator draws the same routes for every
quantity of the same number of routes, which makes comparisons of drivers on the same routes paired
ones, and reports repeatable.

References:
    Efron, B. and Tibshirani, R. J. (1993). An Introduction to the Bootstrap. Chapman & Hall.
    Percentile intervals, chapter 13.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from charles.errors import require

RESAMPLES = 10_000
"""Bootstrap draws: enough that the second digit of a bound does not move with the seed."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean, or a ratio of sums, with its 95 % interval."""

    mean: float
    interval: tuple[float, float]

    def as_json(self) -> dict[str, object]:
        """Plain data; what is not finite (a distance between events that never came) is null."""
        low, high = self.interval
        return {"mean": _finite(self.mean), "interval": [_finite(low), _finite(high)]}


def interval(
    values: Sequence[float] | np.ndarray,
    weights: Sequence[float] | np.ndarray | None = None,
    *,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Mean of ``values``, or the ratio of the sums of ``values`` and ``weights``, over routes.

    Args:
        values: One number per route ``[N]``, for example collisions.
        weights: One number per route ``[N]``, 0 or more, for example kilometres, or the same
            quantity of another driver on the same routes (a paired ratio). ``None`` for the mean.
        level: Coverage of the interval, in (0, 1).
        seed: Seed of the resampling.

    Returns:
        The estimate. A ratio with a zero sum below is ``inf``, or 0 where both sums are zero.

    Raises:
        ConfigError: There is no route, or the lengths differ.
    """
    tops = np.asarray(values, dtype=np.float64)
    bottoms = np.ones_like(tops) if weights is None else np.asarray(weights, dtype=np.float64)
    _check(tops, bottoms, level)
    chosen = _draw_routes(len(tops), seed)
    ratios = _ratio(tops[chosen].sum(axis=1), bottoms[chosen].sum(axis=1))
    mean = _ratio(tops.sum(keepdims=True), bottoms.sum(keepdims=True))
    return _estimate(mean, ratios, level)


def event_rate(counts: Sequence[float], exposure: Sequence[float]) -> Estimate:
    """Events per unit of exposure, as :func:`interval`, also where none ever happened.

    Resampling routes without an event would say that there never can be one. There, the upper end
    is the rate at which so much exposure passes without one in a fortieth of all cases.

    Args:
        counts: Events of each route ``[N]``.
        exposure: For example kilometres of each route ``[N]``.

    References:
        Garwood, "Fiducial limits for the Poisson distribution", 1936,
        https://doi.org/10.1093/biomet/28.3-4.437.
    """
    estimate = interval(counts, exposure)
    if sum(counts) or not sum(exposure):
        return estimate
    return Estimate(mean=0.0, interval=(0.0, math.log(40) / sum(exposure)))


def poisson_excess(events: int, exposure: float, other_events: int, other_exposure: float) -> float:
    """Probability of as many ``events`` or more if both rates are equal: the conditional test.

    Given how many events there were in all, each fell into the first exposure with that one's
    share of both. Exact; small where the first rate is the higher one.

    Args:
        events: Events seen, 0 or more.
        exposure: For example the seconds in which they were seen, 0 or more.
        other_events: Those to compare with.
        other_exposure: In the same unit.

    Returns:
        The one-sided p-value, in [0, 1]; 1 where there is nothing to compare with.

    References:
        Przyborowski and Wilenski, "Homogeneity of results in testing samples from Poisson series",
        1940, https://doi.org/10.1093/biomet/31.3-4.313.

    Example:
        >>> round(poisson_excess(6, 60.0, 1, 60.0), 4)
        0.0625
    """
    if exposure <= 0.0 or other_exposure <= 0.0:
        return 1.0
    total = events + other_events
    ours = math.log(exposure / (exposure + other_exposure))
    others = math.log(other_exposure / (exposure + other_exposure))
    ways = math.lgamma(total + 1)
    logs = (  # logarithms, as the ways alone would overflow
        ways - math.lgamma(k + 1) - math.lgamma(total - k + 1) + k * ours + (total - k) * others
        for k in range(events, total + 1)
    )
    return min(1.0, math.fsum(map(math.exp, logs)))


def compare(
    ours: tuple[Sequence[float], Sequence[float]],
    theirs: tuple[Sequence[float], Sequence[float]],
    *,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """One ratio of sums over another, paired by route: our collisions per km over theirs.

    Args:
        ours: Values and weights of one driver, one number per route each ``[N]``.
        theirs: Those of another driver on the same routes.
        level: Coverage of the interval, in (0, 1).
        seed: Seed of the resampling.

    Returns:
        The estimate; ``inf`` where only theirs is zero, and 0 where ours is.

    Raises:
        ConfigError: There is no route, or the lengths differ.
    """
    pairs = [tuple(np.asarray(side, dtype=np.float64) for side in pair) for pair in (ours, theirs)]
    for tops, bottoms in pairs:
        _check(tops, bottoms, level)
    chosen = _draw_routes(len(pairs[0][0]), seed)
    rates = [
        _ratio(tops[chosen].sum(axis=1), bottoms[chosen].sum(axis=1)) for tops, bottoms in pairs
    ]
    means = [_ratio(tops.sum(keepdims=True), bottoms.sum(keepdims=True)) for tops, bottoms in pairs]
    return _estimate(_ratio(*means), _ratio(*rates), level)


def _check(tops: np.ndarray, bottoms: np.ndarray, level: float) -> None:
    require(tops.ndim == 1 and len(tops) > 0, "values", "hold at least one route", tops.shape)
    require(tops.shape == bottoms.shape, "weights", f"have shape {tops.shape}", bottoms.shape)
    require(0 < level < 1, "level", "lie in (0, 1)", level)


def _draw_routes(num: int, seed: int) -> np.ndarray:
    """Route numbers of every resample, int64 ``[RESAMPLES, num]``."""
    return np.random.default_rng(seed).integers(num, size=(RESAMPLES, num))


def _estimate(mean: np.ndarray, resampled: np.ndarray, level: float) -> Estimate:
    # Quantiles by rank: interpolating between a finite ratio and an infinite one has no value.
    bounds = ((1 - level) / 2, (1 + level) / 2)
    low, high = np.quantile(resampled, bounds, method="inverted_cdf")
    return Estimate(mean=float(mean[0]), interval=(float(low), float(high)))


def _ratio(tops: np.ndarray, bottoms: np.ndarray) -> np.ndarray:
    """Elementwise quotient; x / 0 is ``inf`` and 0 / 0 is 0, without warnings."""
    empty = np.where(tops > 0, np.inf, 0.0)
    return np.divide(tops, bottoms, out=empty, where=bottoms > 0)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
