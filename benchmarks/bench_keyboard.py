"""For what share of the time a keyboard pad holds a key down, against what was asked for.

Needs Xvfb and ``charles[keyboard]``. A player's rate of updates, the server's own times, one window
that watches as a game does.
"""

import time
from contextlib import closing

import numpy as np
from benchmarks.harness import Row, write_results
from tests.io.pads.x11 import Onlooker, x_server

from charles.io.pads.keyboard import KeyboardPad
from charles.io.pads.xtest import XTestKeys
from charles.pad_config import PadConfig

SHARES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 0.95)
SECONDS, TRIES, RATE_HZ = 2.0, 5, 30.0


def held(pad: KeyboardPad, onlooker: Onlooker, share: float) -> float:
    """Share of the time that the key for steering right was down; whole pulses count."""
    onlooker.events()
    begins_s = time.monotonic()
    for tick in range(round(SECONDS * RATE_HZ)):
        pad.update(np.array([0.0, share], np.float32))
        time.sleep(max(0.0, begins_s + (tick + 1) / RATE_HZ - time.monotonic()))
    pad.neutral()
    times_s = [time_s for time_s, key, _ in onlooker.events() if key == "d"]
    # From the first press to the last, of which only the beginning counts.
    presses_s, ends_s = np.array(times_s[0::2]), np.array(times_s[1::2])
    if len(presses_s) < 2:
        return float("nan")
    return float((ends_s - presses_s)[:-1].sum() / (presses_s[-1] - presses_s[0]))


def main() -> None:
    """Measure and write ``results/keyboard.json``."""
    rows = []
    with x_server() as display, closing(Onlooker(display)) as onlooker:
        config = PadConfig(kind="keyboard", display=display)
        with closing(
            KeyboardPad(XTestKeys(vars(config.keys).values(), display), config=config)
        ) as pad:
            for share in SHARES:
                found = np.array([held(pad, onlooker, share) for _ in range(TRIES)])
                errors = np.abs(found - share)
                name = f"asked for {share:.0%}, was down {np.median(found):.1%}: error"
                rows.append(Row(name=name, median=float(np.median(errors) * 100),
                                p95=float(np.percentile(errors, 95) * 100), unit="% of the time",
                                worst=float(errors.max() * 100)))  # fmt: skip
    write_results("keyboard", rows, "python -m benchmarks.bench_keyboard")


if __name__ == "__main__":
    main()
