"""Format, lint, types and tests, as `make check` and the continuous integration run them."""

import subprocess
import sys

# Tests mostly wait for processes that they started: two at a time use the other core meanwhile. A
# file's tests stay together, as they share what its fixtures made. Files go in their usual order,
# where the last are short; by itself the plugin keeps those of few tests for the end, which take
# longest.
_TWO_AT_A_TIME = ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]

CHECKS = (
    ("format", ["-m", "ruff", "format", "--check", "."]),
    ("lint", ["-m", "ruff", "check", "."]),
    ("types", ["-m", "pyright"]),
    ("types on Windows", ["-m", "pyright", "--pythonplatform", "Windows", "src", "bin"]),
    ("tests", ["-m", "pytest", "-q", *_TWO_AT_A_TIME]),
)


def main() -> int:
    """Run every check, even after a failure; returns the number that failed."""
    failed = [
        name
        for name, arguments in CHECKS
        if subprocess.run([sys.executable, *arguments], check=False).returncode
    ]
    print(f"failed: {', '.join(failed)}" if failed else "all checks passed", flush=True)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
