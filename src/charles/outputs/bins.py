"""The balancing bins that follow from an output's declaration."""

from dataclasses import dataclass

import numpy as np

from charles.outputs.declaration import OutputConfig


@dataclass(frozen=True, kw_only=True)
class Bins:
    """The balancing bins of one output.

    Of a regression: exact values, and open ranges between the edges. Of classes: one for each, of
    the values (of a discrete delta, of the changes) that it is nearest to.

    Bins are numbered by rising value. ``names`` has a text for each: ``0``, ``(0.1, 0.2)``, or, of
    changes, ``+0.03``.
    """

    names: tuple[str, ...]
    lows: np.ndarray
    """Lower bound of each bin, float64 ``[K]``."""
    highs: np.ndarray
    """Upper bound of each bin, float64 ``[K]``."""

    @classmethod
    def of(cls, config: OutputConfig) -> "Bins":
        """The bins that follow from an output's type and range."""
        return cls._of_ranges(config) if config.type == "regression" else cls._of_classes(config)

    @classmethod
    def _of_ranges(cls, config: OutputConfig) -> "Bins":
        tolerance = config.exact_tolerance
        edges = config.bin_edges
        bounds: list[tuple[str, float, float]] = []
        for low, high in zip(edges, [*edges[1:], None], strict=True):
            if low in config.exact:
                bounds.append((f"{low:g}", low - tolerance, low + tolerance))
            if high is None:
                break
            inner_low = low + tolerance if low in config.exact else low
            inner_high = high - tolerance if high in config.exact else high
            bounds.append((f"({low:g}, {high:g})", inner_low, inner_high))
        names, lows, highs = zip(*bounds, strict=True)
        return cls(names=names, lows=np.array(lows), highs=np.array(highs))

    @classmethod
    def _of_classes(cls, config: OutputConfig) -> "Bins":
        values = np.array(config.class_values)
        span = config.high - config.low
        low, high = (-span, span) if config.is_by_change else (config.low, config.high)
        between = (values[:-1] + values[1:]) / 2
        sign = "+" if config.is_by_change else ""
        return cls(
            names=tuple(f"{value:{sign if value else ''}g}" for value in config.class_values),
            lows=np.array([min(low, values[0]), *between]),
            highs=np.array([*between, max(high, values[-1])]),
        )

    def __len__(self) -> int:
        return len(self.names)

    def index(self, values: np.ndarray | float) -> np.ndarray:
        """Bin numbers, int64 of the shape of ``values``; values outside go to the end bins."""
        return np.clip(np.searchsorted(self.highs, values, side="left"), 0, len(self) - 1)
