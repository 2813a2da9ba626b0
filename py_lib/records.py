"""Files of JSON lines: one result a line, so that a run that breaks off loses nothing that was finished."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_records(path: Path) -> list[dict[str, Any]]:
    """Reads all records; a last line that was cut off is left out. Raises ValueError for other damage."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except ValueError:
            if number < len(lines):
                raise ValueError(f"{path}:{number}: not a JSON line") from None
    return records


def append_record(path: Path, record: dict[str, Any]) -> None:
    """Adds a record; a cut-off last line before it is ended first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cut = path.exists() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
    if cut:
        whole = path.read_bytes()
        path.write_bytes(whole[: whole.rfind(b"\n") + 1])
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def write_records(path: Path, records: list[dict[str, Any]]) -> None:
    """Writes a file of records anew, whole or not at all."""
    written = path.with_name(f".{path.name}.part")
    written.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    written.replace(path)
