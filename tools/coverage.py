#!/usr/bin/env python3
"""Adds up an lcov file by module.

Prints a table on the standard output, and the lines that nothing reached on the standard error:

    python3 tools/coverage.py lcov.info

The modules are those that keep data.
"""

import sys
from collections import defaultdict
from pathlib import Path

MODULES = [
    "checkpoint",
    "name",
    "hash",
    "store/object",
    "store/manifest",
    "store/layout",
    "store/fs",
    "codec",
    "restore",
    "check",
]
ROOT = Path(__file__).resolve().parent.parent


def module_of(file: str) -> str | None:
    inside = file.removesuffix(".rs")
    return next((module for module in MODULES if inside == module or inside.startswith(f"{module}/")), None)


def hits(report: Path) -> dict[str, dict[int, int]]:
    """Returns how often each line of each file below src/ was reached."""
    lines: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    file = ""
    for row in report.read_text().splitlines():
        if row.startswith("SF:"):
            path = Path(row[3:])
            file = str(path.relative_to(ROOT / "src")) if path.is_relative_to(ROOT / "src") else ""
        elif row.startswith("DA:") and file:
            line, count = row[3:].split(",")[:2]
            lines[file][int(line)] += int(count)
    return lines


def end_of_code(text: list[str]) -> int:
    """Returns the line at which the unit tests of a file begin."""
    return next((number for number, line in enumerate(text, 1) if line == "#[cfg(test)]"), len(text) + 1)


def main() -> None:
    sums: dict[str, list[int]] = {module: [0, 0] for module in MODULES}
    for file, lines in sorted(hits(Path(sys.argv[1])).items()):
        module = module_of(file)
        if module is None or Path(file).name == "tests.rs":
            continue
        text = (ROOT / "src" / file).read_text().splitlines()
        code = {line: count for line, count in lines.items() if line < end_of_code(text)}
        sums[module][0] += len(code)
        sums[module][1] += sum(count > 0 for count in code.values())
        for line, count in sorted(code.items()):
            if count == 0:
                print(f"src/{file}:{line}: {text[line - 1]}", file=sys.stderr)
    for module, (lines, reached) in sums.items():
        print(f"{module:16} {lines:5} lines  {100 * reached / max(lines, 1):5.1f} %")


if __name__ == "__main__":
    main()
