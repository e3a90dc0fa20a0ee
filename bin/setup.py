"""Makes this checkout runnable: a virtual environment with the locked packages and Charles itself.

Only the standard library is used here, because nothing else is installed yet.
"""

import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv"
LOCK = ROOT / "requirements.lock"
LEAST = (3, 11)


def python_of(environment: Path) -> Path:
    """The interpreter inside a virtual environment."""
    windows = environment / "Scripts" / "python.exe"
    return windows if os.name == "nt" else environment / "bin" / "python"


def ensure_environment() -> Path:
    """Make or refresh the environment when the lock changed; returns its interpreter."""
    if sys.version_info < LEAST:
        found = ".".join(map(str, sys.version_info[:3]))
        raise SystemExit(f"Python must be 3.11 or newer, got {found}. Run: python3.11 bin/...")
    python = python_of(ENVIRONMENT)
    stamp = ENVIRONMENT / "charles-lock"
    wanted = LOCK.read_bytes() + (ROOT / "pyproject.toml").read_bytes()
    if python.exists() and stamp.exists() and stamp.read_bytes() == wanted:
        return python
    print("Setting up .venv (once; about 500 MB are downloaded) ...", flush=True)
    if not python.exists():
        _make_environment()
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "uv>=0.5"])  # installs the rest many times faster than pip
    uv = [str(python), "-m", "uv", "pip", "install", "--quiet", "--python", str(python)]
    _run([*uv, "--require-hashes", "-r", str(LOCK)])
    _run([*uv, "--no-deps", "-e", str(ROOT)])
    stamp.write_bytes(wanted)
    return python


def _make_environment() -> None:
    try:
        venv.create(ENVIRONMENT, with_pip=True)
    except (subprocess.CalledProcessError, OSError) as error:
        raise SystemExit(
            f"The virtual environment {ENVIRONMENT} could not be made: {error}. "
            "On Debian and Ubuntu: apt install python3-venv."
        ) from error


def run(*arguments: str) -> int:
    """Run a command in the environment, from the checkout's root; returns its exit status."""
    python = ensure_environment()
    command = [str(python), *arguments]
    # A run has many processes. Where no byte code is kept, each of them compiles JAX and Flax anew.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if os.name != "nt":
        os.chdir(ROOT)
        os.execv(command[0], command)
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def _run(command: list[str]) -> None:
    if subprocess.run(command, check=False).returncode:
        raise SystemExit(f"Setting up failed at: {' '.join(command)}. Mend that and run again.")
