"""The end of a run that asks for it: score, loss plot, balance plot, film and stills, in one place.

Everything is written below ``<run_dir>/report``, and ``report.json`` into the run directory itself.
"""

from pathlib import Path
from typing import Any

from charles.evaluate import evaluate, find_run
from charles.options import EvaluateOptions
from charles.run import read_run
from charles.ui.drive_film import film_before_after
from charles.ui.plots import loss_plot


def write_report(run_dir: Path, *, routes: int, film_s: float) -> dict[str, Any]:
    """Score the newest checkpoint closed-loop and show before and after. Blocks for about a minute.

    Args:
        run_dir: The run.
        routes: Routes to drive, in worlds that were never trained on.
        film_s: Length of the film, seconds; there is one in Town.

    Returns:
        The report, as it stands in ``report.json``.

    Raises:
        CheckpointError: The run has no checkpoint yet.
        ConfigError: A run of its game cannot be scored.
    """
    run_dir, checkpoint_dir = find_run(run_dir)
    config = read_run(run_dir)
    directory = run_dir / "report"
    directory.mkdir(parents=True, exist_ok=True)
    report = evaluate(
        EvaluateOptions(checkpoint=run_dir, routes=routes, json=run_dir / "report.json")
    )
    loss_plot(run_dir / "metrics.csv", directory / "loss.png")
    made: list[Path] = []
    if config.game.name == "town":  # only a town can be driven by several at the same time
        film = directory / "before_after.mp4"
        made = film_before_after(config, checkpoint_dir, film, seconds=film_s)
    for path in (run_dir / "report.json", directory / "loss.png", *made):
        print(path)
    return report
