"""py_lib/generate_base_ft.py by its command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Run

SCRIPT = "py_lib/generate_base_ft.py"


@pytest.mark.parametrize(
    ("text", "mapping"),
    [
        ("a/base\nb/one\nb/two\n", {"a/base": ["b/one", "b/two"]}),
        (
            "# families\n\na/base\nb/one # light\n\n\nc/base\n# still c\nd/tune\n",
            {"a/base": ["b/one"], "c/base": ["d/tune"]},
        ),
        ("gpt2\r\nb/one\r\nb/one\r\n", {"gpt2": ["b/one"]}),
        ("a/base\n", {"a/base": []}),
        ("\ufeffa/base\r\n", {"a/base": []}),  # as Windows' editors write it
        ("a/base\nb/one\n\nb/one\nc/two\n", {"a/base": ["b/one"], "b/one": ["c/two"]}),
    ],
)
def test_mapping(text: str, mapping: dict[str, list[str]], run: Run, tmp_path: Path) -> None:
    (tmp_path / "models.txt").write_text(text)
    result = run(SCRIPT, "models.txt", "sub/base_ft.json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "sub" / "base_ft.json").read_text()) == mapping


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a/base\n../etc\n", "models.txt:2: '../etc' is not a model id"),
        ("a/base\na/base\n", "a fine-tune of itself"),
        ("a/x\nb/one\n\na/y\nb/one\n", "b/one has two bases, a/x and a/y"),
        ("# nothing\n", "no model is listed"),
    ],
)
def test_refused_lists(text: str, message: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "models.txt").write_text(text)
    result = run(SCRIPT, "models.txt", "base_ft.json", cwd=tmp_path)
    assert result.returncode == 2 and message in result.stderr
    assert not (tmp_path / "base_ft.json").exists()


def test_a_list_that_is_no_text_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "models.txt").write_bytes(b"\xff\xfea/base")
    result = run(SCRIPT, "models.txt", "base_ft.json", cwd=tmp_path)
    assert result.returncode == 2 and "models.txt: not text in UTF-8" in result.stderr
