"""Workers hand their errors to the parent, stop when asked, and do not outlive it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from charles.errors import ConfigError
from charles.process import Worker, stop_on_signals


def fail(text):
    raise ConfigError(text)


def wait_for_stop(begun=None):
    stop = stop_on_signals()
    if begun is not None:
        Path(begun).touch()
    while not stop.wait(0.1):  # Windows wakes nobody from a wait without an end
        pass


def ignore_everything(begun):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path(begun).touch()
    while True:
        time.sleep(0.1)


def until(condition, timeout_s=20.0):
    ends_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < ends_s, "timed out"
        time.sleep(0.02)


def test_a_workers_traceback_reaches_the_parent():
    worker = Worker("collector 1", fail, "rate_hz must be positive, got -3.")
    until(lambda: not worker.is_alive)
    error = worker.error()
    worker.stop()
    assert error is not None
    assert "collector 1" in str(error)
    assert "rate_hz must be positive, got -3." in str(error)
    assert "in fail" in str(error)


def test_a_worker_that_was_killed_is_an_error_too():
    worker = Worker("collector 1", wait_for_stop)
    psutil.Process(worker.pid).kill()
    until(lambda: not worker.is_alive)
    assert "failed: exit code" in str(worker.error())
    worker.stop()


def test_stopping_ends_a_worker_well(tmp_path):
    begun = tmp_path / "begun"
    worker = Worker("player", wait_for_stop, begun)
    until(begun.exists)
    worker.stop()
    assert not worker.is_alive
    assert worker.error() is None


def test_a_deaf_worker_is_killed_in_time(tmp_path):
    begun = tmp_path / "begun"
    worker = Worker("deaf", ignore_everything, begun)
    until(begun.exists)
    started_s = time.monotonic()
    worker.stop(timeout_s=0.5)
    assert time.monotonic() - started_s < 4.0
    assert not worker.is_alive


PARENT = """
import sys, time
sys.path.insert(0, {tests!r})
from test_process import {target}
from charles.process import Worker
if __name__ == "__main__":
    child = Worker("child", {target}, sys.argv[1])  # whose lifeline goes with it
    print(child.pid, flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9")
@pytest.mark.parametrize("target", [wait_for_stop, ignore_everything])
def test_no_worker_outlives_a_killed_parent(target, tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(tests=os.path.dirname(__file__), target=target.__name__))
    begun = tmp_path / "begun"
    command = [sys.executable, str(script), str(begun)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    until(begun.exists)
    assert child.is_running()
    assert child.status() != psutil.STATUS_ZOMBIE
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


LOWER = """
import os, sys, threading, time, psutil
from charles.process import lower_priority
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
for niceness in (3, 7, 2):  # nobody rises again
    lower_priority(niceness)
threads = psutil.Process().threads()
print(len(threads), {os.getpriority(os.PRIO_PROCESS, thread.id) for thread in threads})
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a niceness of each thread")
def test_all_threads_let_others_go_first():
    command = [sys.executable, "-c", LOWER]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert int(told[0]) >= 2
    assert told[1] == "{7}"
