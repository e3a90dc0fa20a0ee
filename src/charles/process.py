"""Starting, watching and stopping processes: spawn only, every wait bounded, nobody left behind.

A worker holds one end of a lifeline, a pipe on which nothing is ever sent. Its other end closes
when the owner wants the worker to stop, and by itself when the owner dies, on every system.
"""

import _thread
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection as Pipe
from types import FrameType
from typing import Any

import psutil

from charles.errors import WorkerError

JOIN_S = 8.0
"""How long a worker is given to leave by itself before it is terminated."""


_CLOSE_EVENT = 2
"""CTRL_CLOSE_EVENT; what follows it are the ends of a session and of the system."""

_is_asked = threading.Event()
"""Whether this process was asked to stop."""


def stop_on_signals() -> threading.Event:
    """An event that SIGINT and SIGTERM set, Windows' SIGBREAK, and SIGHUP, the end of the terminal,
    where it is not ignored (nohup). Call from the main thread.

    A second SIGINT is not caught, so that an impatient user is obeyed.
    """
    stop = threading.Event()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        stop.set()
        _is_asked.set()
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else
                      signal.SIG_DFL)  # fmt: skip

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    if sys.platform == "win32":
        signal.signal(signal.SIGBREAK, on_signal)
        _before_console_closes(lambda: (stop.set(), _is_asked.set()))
    elif signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, on_signal)
    return stop


def interrupt_on_end() -> None:
    """Have the end of the process asked for as Ctrl-C does, for what looks at no event: everything
    that is open is closed on the way out. Call from the main thread."""
    for name in ("SIGTERM", "SIGHUP", "SIGBREAK"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    if sys.platform == "win32":
        _before_console_closes(_thread.interrupt_main)


_console_handlers: list[Any] = []
"""Windows calls them for as long as this process lives."""


def _before_console_closes(ask: Callable[[], object]) -> None:
    """Have Windows ask before it ends this process with its console, or its session: once its
    handler returns, the process is gone, so that one waits; Windows does so for some seconds."""
    if sys.platform != "win32":
        return

    @ctypes.WINFUNCTYPE(ctypes.c_int, ctypes.c_uint32)
    def on_event(kind: int) -> int:
        if kind < _CLOSE_EVENT:  # Ctrl-C and Ctrl-Break are signals
            return 0
        ask()
        time.sleep(JOIN_S)
        return 1

    _console_handlers.append(on_event)
    ctypes.WinDLL("kernel32").SetConsoleCtrlHandler(on_event, 1)


def lower_priority(niceness: int) -> None:
    """Let others go first: a niceness of at least ``niceness``; Windows has one step of it."""
    process = psutil.Process()
    if sys.platform == "win32":
        process.nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
        return
    # Linux knows a niceness of each thread, and XLA's began long ago.
    ids = [thread.id for thread in process.threads()] if sys.platform == "linux" else [process.pid]
    for number in ids:
        with suppress(ProcessLookupError):  # it has ended
            now = os.getpriority(os.PRIO_PROCESS, number)
            os.setpriority(os.PRIO_PROCESS, number, max(now, niceness))


def _run(pipe: Pipe, lifeline: Pipe, target: Callable[..., None], args: tuple) -> None:
    """A worker's main: run ``target`` and hand a failure's traceback to the parent."""
    threading.Thread(target=_leave_with, args=(lifeline,), daemon=True).start()
    try:
        target(*args)
    except Exception:
        pipe.send(traceback.format_exc())
        raise SystemExit(1) from None
    finally:
        pipe.close()


def _leave_with(lifeline: Pipe) -> None:
    """End this process once its owner lets go of it, so that no worker outlives its owner.

    It is asked first, and then made to: one that compiles hears nothing.
    """
    with suppress(EOFError, OSError):
        lifeline.recv_bytes()
    if not _is_asked.is_set():  # who is asked twice ends at once
        _ask_to_stop()
    time.sleep(JOIN_S)
    os._exit(1)


def _ask_to_stop() -> None:
    if sys.platform == "win32":
        signal.raise_signal(signal.SIGTERM)  # os.kill would end the process at once
    else:
        os.kill(os.getpid(), signal.SIGTERM)


class Worker:
    """A spawned process that runs one function and reports how it ended.

    Args:
        name: For people and for error texts.
        target: A module-level function.
        args: Its picklable arguments.
    """

    def __init__(self, name: str, target: Callable[..., None], *args: object) -> None:
        context = multiprocessing.get_context("spawn")
        self.name = name
        self._pipe, child = context.Pipe(duplex=False)
        held, self._lifeline = context.Pipe(duplex=False)
        self._process = context.Process(target=_run, args=(child, held, target, args), name=name)
        self._process.start()
        child.close()
        held.close()

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.is_alive()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process.pid is not None
        return self._process.pid

    def error(self) -> WorkerError | None:
        """How it failed, if it did; ``None`` while it runs or if it ended well."""
        if self._process.is_alive() or self._process.exitcode in (0, None):
            return None
        text = f"exit code {self._process.exitcode}"
        try:
            if self._pipe.poll():
                text = self._pipe.recv()
        except (EOFError, OSError):
            text += ", without a word"
        return WorkerError(f"{self.name} failed: {text}")

    def stop(self, timeout_s: float = JOIN_S) -> None:
        """Ask it to stop, wait, then make it. Blocks at most about ``timeout_s`` + 2 s."""
        self._lifeline.close()
        self._process.join(timeout_s)
        if self._process.is_alive():
            self._process.kill()
        self._process.join(2.0)
        self._pipe.close()
