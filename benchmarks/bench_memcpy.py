"""The machine's own ceiling: how fast it copies frames, and gathers batches of them, with NumPy.

Run: ``python -m benchmarks.bench_memcpy``
"""

import numpy as np
from benchmarks.harness import Row, Timing, duration_row, measure, memcpy_ceiling, write_results

from charles.sample import SampleSpec

BATCH_SIZE = 32
SECONDS = 2.0


def measure_take(frame_bytes: int) -> Timing:
    """A random batch out of 256 MiB of frames, into memory that is there already."""
    rng = np.random.default_rng(0)
    frames = np.ones(((256 << 20) // frame_bytes, frame_bytes), np.uint8)
    batch = np.zeros((BATCH_SIZE, frame_bytes), np.uint8)

    def take() -> None:
        np.take(frames, rng.integers(0, len(frames), BATCH_SIZE), axis=0, out=batch, mode="clip")

    return measure(take, seconds=SECONDS)


def main() -> None:
    """Measure and write ``results/memcpy.json``."""
    rows: list[Row] = []
    for spec in (SampleSpec(pixel_format="yuv420"), SampleSpec(pixel_format="rgb")):
        name = f"480x270 {spec.pixel_format}"
        copy = memcpy_ceiling(spec.pixels_bytes, seconds=SECONDS)
        rows.append(duration_row(f"memcpy, one frame {name}", copy))
        rows.append(
            duration_row(f"gather of {BATCH_SIZE}, {name}", measure_take(spec.pixels_bytes))
        )
    big = memcpy_ceiling(64 << 20, seconds=SECONDS)
    rate = (64 << 20) / 2**30
    rows.append(Row(name="memcpy, 64 MiB", median=rate / big.median_s, p95=rate / big.p95_s,
                    unit="GiB/s"))  # fmt: skip
    write_results("memcpy", rows, "python -m benchmarks.bench_memcpy")


if __name__ == "__main__":
    main()
