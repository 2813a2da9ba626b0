"""Reads JSON settings; every error names the file, and the key where there is one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_object(path: Path) -> dict[str, Any]:
    """Reads a JSON file that holds one object; raises ValueError, or OSError."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: has to hold a JSON object")
    return value


def text_setting(path: Path, settings: dict[str, Any], key: str) -> str:
    """Returns a text that has to be there; raises ValueError naming file and key."""
    if key not in settings:
        raise ValueError(f"{path}: the key {key!r} is missing")
    value = settings[key]
    if not isinstance(value, str) or not value:
        raise ValueError(f"{path}: {key!r} has to be a text, not {json.dumps(value)}")
    return value


def path_setting(path: Path, settings: dict[str, Any], key: str) -> Path:
    """Returns a path that has to be there, resolved against the folder of the settings."""
    return path.resolve().parent / text_setting(path, settings, key)
