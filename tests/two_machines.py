"""Two machines in one: network namespaces with a cable between them."""

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager


def has_namespaces():
    if shutil.which("ip") is None or os.name != "posix" or os.geteuid() != 0:
        return False
    made = subprocess.run(["ip", "netns", "add", "charles-probe"], check=False, capture_output=True)
    subprocess.run(["ip", "netns", "del", "charles-probe"], check=False, capture_output=True)
    return made.returncode == 0


@contextmanager
def two_machines():
    """Two network namespaces and a cable; yields their names, the ends, the first's address."""
    names = [f"charles-{os.getpid()}-{letter}" for letter in "ab"]
    ends = [f"ch{os.getpid() % 10_000}{letter}" for letter in "ab"]

    def ip(*words):
        subprocess.run(["ip", *words], check=True, capture_output=True)

    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for number, (name, end) in enumerate(zip(names, ends, strict=True)):
            ip("link", "set", end, "netns", name)
            ip("-n", name, "address", "add", f"10.77.0.{number + 1}/24", "dev", end)
            ip("-n", name, "link", "set", end, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names, ends, "10.77.0.1"
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def start(namespace, *words, **kwargs):
    return subprocess.Popen(
        ["ip", "netns", "exec", namespace, sys.executable, *words], text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE, **kwargs,
    )  # fmt: skip


def read_until(process, word):
    for line in process.stdout:
        if word in line:
            return line
    raise AssertionError(f"the process ended without saying {word!r}")
