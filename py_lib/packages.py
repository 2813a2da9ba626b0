"""Says what to do where a Python package is missing; itself it needs none."""

from __future__ import annotations

import sys
from pathlib import Path

EXIT_ABSENT = 2


def stop_without(error: ImportError) -> SystemExit:
    """Prints which package is missing and how to get it; returns the exit to raise."""
    script = Path(sys.argv[0]).name
    print(
        f"{script}: the Python package {error.name!r} is missing: pip3 install -r requirements.txt, or run it with "
        ".venv/bin/python, which ./setup_test_models.sh makes",
        file=sys.stderr,
    )
    return SystemExit(EXIT_ABSENT)
