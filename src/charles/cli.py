"""The commands: ``charles-train``, ``charles-collect``, ``charles-play`` and so on.

Each is one function: it parses its arguments, calls one function of Charles, and turns an error
that was written for the user into one line and exit status 2. Everything heavy is imported inside,
because processes that a command starts import the module that it was started from.
"""

import io
import os
import sys
from collections.abc import Callable, Sequence

from charles.errors import CharlesError, WorkerError
from charles.options import (
    CalibrateOptions,
    CollectOptions,
    EvaluateOptions,
    ExportOptions,
    PlayOptions,
    ServeOptions,
    TownOptions,
)

USER_ERROR = 2
"""Exit status of an error that the user can mend."""

INTERRUPTED = 130
"""Exit status after Ctrl-C, where a command does not stop by itself."""


def train() -> None:
    """``charles-train``: the server of a run, its trainer, and whatever is started along."""
    run_command("charles-train", _train)


def collect() -> None:
    """``charles-collect``: a data collector for the server on this host."""
    run_command("charles-collect", _collect)


def play() -> None:
    """``charles-play``: a player, driving with a network while it is learning."""
    run_command("charles-play", _play)


def serve() -> None:
    """``charles-serve``: predictions for players on machines without an accelerator."""
    run_command("charles-serve", _serve)


def town() -> None:
    """``charles-town``: the built-in game, served or filmed."""
    run_command("charles-town", _town)


def evaluate() -> None:
    """``charles-evaluate``: a closed-loop score of a checkpoint."""
    run_command("charles-evaluate", _evaluate)


def export() -> None:
    """``charles-export``: a trained backbone as a weight file."""
    run_command("charles-export", _export)


def calibrate() -> None:
    """``charles-calibrate``: how a game answers a pad, and how late it shows it."""
    run_command("charles-calibrate", _calibrate)


def run_command(program: str, command: Callable[[Sequence[str]], None]) -> None:
    """Run ``command`` on this process's arguments, and end the process if it fails.

    Args:
        program: Name to begin error lines with.
        command: Takes the arguments, ``--debug`` left out.

    Raises:
        SystemExit: It failed for a reason that was written for the user.
    """
    arguments = [each for each in sys.argv[1:] if each != "--debug"]
    share_device()
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file in Windows' own encoding lacks characters
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        command(arguments)
    except CharlesError as error:
        if len(arguments) < len(sys.argv) - 1:
            raise
        print(f"{program}: {error_text(error)}", file=sys.stderr)
        raise SystemExit(USER_ERROR) from None
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


def error_text(error: CharlesError) -> str:
    """An error's text; of a worker's traceback one line, what failed and the cause."""
    if not isinstance(error, WorkerError):
        return str(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) < 3:
        return " ".join(lines)
    head = lines[0].removesuffix("Traceback (most recent call last):")
    return f"{head.rstrip()} {lines[-1]} (--debug shows more)"


def _train(arguments: Sequence[str]) -> None:
    from charles.parsing import parse_train

    options = parse_train(arguments)
    if options.config.step_threads == 1:
        use_one_thread()
    from charles.trainer import train

    train(
        options.config,
        collectors=options.collectors,
        player=options.player,
        console=options.console,
        resume=options.resume,
        accept_contract=options.accept_contract,
    )
    if options.report:
        from charles.report import write_report

        write_report(
            options.config.run_dir, routes=options.report_routes, film_s=options.report_film_s
        )


def use_one_thread() -> None:
    """Let XLA compute with one thread in this process and those it starts; before jax is imported.

    A step on all cores would leave none to collectors and player, which on a small machine costs
    more than it gains.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()


def share_device() -> None:
    """Let JAX take a GPU's memory as it needs it, before it is imported: trainer, player and
    collectors share one, and each would take three quarters of it at its start."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def _collect(arguments: Sequence[str]) -> None:
    from charles.parsing import parse

    text = (
        "Watch the game's own driver and send balanced samples to the trainer on this host. Waits "
        "for the trainer, and survives its restarts."
    )
    options = parse(CollectOptions, arguments, program="charles-collect", text=text)
    from charles.collect import collect

    collect(
        options.server,
        has_console=options.console,
        plot=options.plot,
        restart_command=options.restart_command,
        accept_contract=options.accept_contract,
        calibration=options.calibration,
        human=options.human,
    )


def _play(arguments: Sequence[str]) -> None:
    from charles.parsing import parse

    text = (
        "Drive with the network that the trainer on this host is training, or with the newest "
        "checkpoint of a run."
    )
    options = parse(PlayOptions, arguments, program="charles-play", text=text)
    from charles.play import play

    play(options)


def _serve(arguments: Sequence[str]) -> None:
    from charles.parsing import parse

    text = (
        "Predict for players on other machines, which send what they see and get the controls "
        "back, with the newest checkpoint of a run, also while it is being trained."
    )
    options = parse(ServeOptions, arguments, program="charles-serve", text=text)
    from charles.serve import serve

    serve(options)


def _town(arguments: Sequence[str]) -> None:
    from charles.parsing import parse

    text = "Serve the built-in game as GTA V with a DeepGTAV mod is served, or film a drive in it."
    options = parse(TownOptions, arguments, program="charles-town", text=text)
    if options.show is not None:
        from charles.ui.town_film import film_town

        film_town(options, options.show)
        return
    from charles.process import stop_on_signals

    if options.protocol == "zmq":
        from charles.town.zmq_server import serve
    else:
        from charles.town.server import serve
    serve(options, stop_on_signals())


def _evaluate(arguments: Sequence[str]) -> None:
    from charles.parsing import parse

    text = (
        "Let a checkpoint drive through worlds it never saw (of Town, CarRacing or MetaDrive), "
        "against its teacher, driving straight ahead and an untrained network."
    )
    options = parse(EvaluateOptions, arguments, program="charles-evaluate", text=text)
    from charles.evaluate import evaluate

    evaluate(options)


def _calibrate(arguments: Sequence[str]) -> None:
    from charles.parsing import parse

    text = (
        "Measure how a game answers a pad's axes, or how late its pictures are, by driving it. "
        "Start where the road is straight and empty."
    )
    options = parse(CalibrateOptions, arguments, program="charles-calibrate", text=text)
    from charles.calibrate import calibrate, describe
    from charles.process import interrupt_on_end

    interrupt_on_end()
    print(describe(calibrate(options), options.out))


def _export(arguments: Sequence[str]) -> None:
    from charles.parsing import parse

    text = "Write the backbone of a checkpoint as safetensors, with the names that timm uses."
    options = parse(ExportOptions, arguments, program="charles-export", text=text)
    from charles.evaluate import find_run
    from charles.run import read_run
    from charles.transfer import export_backbone

    run_dir, checkpoints = find_run(options.checkpoint)
    spec = read_run(run_dir).network.spec
    export_backbone(options.out, checkpoints, spec, part=options.part, step=options.step)
