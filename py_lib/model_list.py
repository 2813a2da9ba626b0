"""Reads lists of models: one `org/name` a line, families parted by blank lines, `#` begins a comment."""

from __future__ import annotations

import re
from pathlib import Path

_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?"
_MODEL_ID = re.compile(rf"{_PART}(?:/{_PART})?")
MAX_ID_BYTES = 96


def check_model_id(text: str) -> str:
    """Returns a model id, or raises ValueError: the hub's rule, which is zipllm's too."""
    if len(text) > MAX_ID_BYTES or "--" in text or ".." in text or not _MODEL_ID.fullmatch(text):
        raise ValueError(f"{text!r} is not a model id (expected org/name)")
    return text


def read_families(path: Path) -> list[list[str]]:
    """Reads the families of a list; in each, the first model is the base.

    Raises ValueError with file and line for a line that is not a model id, and OSError.
    """
    families: list[list[str]] = [[]]
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()  # Windows' editors begin a text with a mark
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not text in UTF-8: {error.reason}") from None
    for number, line in enumerate(lines, start=1):
        text = line.partition("#")[0].strip()
        if text:
            families[-1].append(_checked(path, number, text))
        elif not line.strip():
            families.append([])
    return [family for family in families if family]


def _checked(path: Path, number: int, text: str) -> str:
    try:
        return check_model_id(text)
    except ValueError as error:
        raise ValueError(f"{path}:{number}: {error}") from None


def read_models(paths: list[Path]) -> list[str]:
    """Reads all models of several lists, each once, in the order of the lists."""
    return list(dict.fromkeys(model for path in paths for family in read_families(path) for model in family))


def model_directory(root: Path, model: str) -> Path:
    """Returns where a model lies, or is to lie, below `root`.

    The first that exists of `org/name`, `org--name` and `org_name`; `org--name` where none does, since no other
    model's directory can be called so.
    """
    for separator in ("/", "--", "_"):
        path = root / model.replace("/", separator)
        if path.is_dir():
            return path
    return root / model.replace("/", "--")


def find_model(root: Path, model: str) -> Path:
    """Returns where a model lies, also in a Hugging Face cache: the snapshot that `refs/main` names, or the only one.

    Raises ValueError if it is not there.
    """
    directory = model_directory(root, model)
    if directory.is_dir():
        return directory
    cached = root / f"models--{model.replace('/', '--')}"
    named = cached / "refs" / "main"
    if named.is_file():
        snapshots = [cached / "snapshots" / named.read_text(encoding="utf-8").strip()]
    else:
        snapshots = [path for path in cached.glob("snapshots/*") if path.is_dir()]
    if len(snapshots) == 1 and snapshots[0].is_dir():
        return snapshots[0]
    raise ValueError(f"{directory}: no such directory")


def directory_model(name: str) -> str:
    """Returns the model whose directory has this name: `org--name`, `org_name` or `name`; raises ValueError."""
    return check_model_id(name.replace("--" if "--" in name else "_", "/", 1))
