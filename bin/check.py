"""Format, lint, types and tests, as `make check` and the continuous integration run them."""

import subprocess
import sys

CHECKS = (
    ("format", ["-m", "ruff", "format", "--check", "."]),
    ("lint", ["-m", "ruff", "check", "."]),
    ("types", ["-m", "pyright"]),
    ("tests", ["-m", "pytest", "-q"]),
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
