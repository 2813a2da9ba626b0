"""The commands that users follow, as they are written, in a fresh copy of the repository.

`BLOCKS` holds those of the system's published description, which are a contract; those of README.md are read from it.
Only the three placeholders of `fill_in` are replaced.
"""

from __future__ import annotations

import filecmp
import json
import os
import random
import re
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from checkout import REPOSITORY, Checkout
from hub_server import HubServer
from tiny_family import SHAPES, to_bfloat16, write_model

from model_list import read_models

BASE, TUNE = "meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B-Instruct"
DROP_CACHES = Path("/proc/sys/vm/drop_caches")

QUICK_START = r"""
vim config.json
./setup_test_models.sh
cargo build --release
RUST_LOG=info ./target/release/zipllm ./config.json
RUST_LOG=info ./target/release/restore ./config.json meta-llama/Llama-3.1-8B-Instruct /tmp/output
ls -la /tmp/output/
"""
BLOCKS = {
    "restore performance": r"""
cd analysis
python3 restore_throughput_analysis.py --threads 1 2 4 8 16 32 48 --config "../config.json"
python3 restore_throughput_analysis.py --analyze-only --config "../config.json"
python3 restore_throughput_analysis.py --threads 1 4 8 16 --analyze --config "../config.json"
""",
    "compression throughput": r"""
cd analysis
python3 compression_throughput_analysis.py /path/to/base/model /path/to/finetune/model
python3 compression_throughput_analysis.py /path/to/base/model /path/to/finetune/model --threads 1,4,8,16,32
python3 compression_throughput_analysis.py /path/to/base/model /path/to/finetune/model --no-decompress
python3 compression_throughput_analysis.py /path/to/base/model /path/to/finetune/model --output custom_prefix
python3 compression_throughput_analysis.py /path/to/base/model /path/to/finetune/model --repeat 3
""",
    "experiments": r"""
cd experiment
vim config.json
python3 run_exp.py
""",
    "BitX": r"""
cargo build --release --example bitx
./target/release/examples/bitx file1.bin file2.bin --compress \
  --compressed-exp exp.zst --compressed-sm mantissa.zst
""",
}
DROPPED_CACHE = r"""
cd analysis
python3 restore_throughput_analysis.py --threads 1 2 4 --drop-cache --config "../config.json"
"""
NOTEBOOK = "jupyter notebook plots.ipynb"
MADE = {
    "restore performance": ["restore_results/restore_throughput.csv", "restore_results/restore_throughput.png"],
    "compression throughput": ["bitx_throughput.csv", "bitx_throughput.png", "custom_prefix.csv", "custom_prefix.png"],
    "experiments": ["results/fastcdc.jsonl"],
    "BitX": ["exp.zst", "mantissa.zst"],
}


@pytest.fixture(scope="module")
def hub_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A hub that has the models of the repository's lists, small; some are gated."""
    root = tmp_path_factory.mktemp("documented-hub")
    source = np.random.default_rng(3)
    base = {name: source.normal(0, 0.02, shape) for name, shape in SHAPES.items()}
    for model in read_models([REPOSITORY / "test_models.txt", REPOSITORY / "test_models_llama31.txt"]):
        changed = {name: values * (1 + source.normal(0, 1e-3, values.shape)) for name, values in base.items()}
        write_model(root / model, {name: to_bfloat16(values) for name, values in changed.items()})
    server = HubServer(root, gated=(BASE, TUNE), tokens=("hf_good",)).start()
    yield server.url
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def checkout(hub_address: str, bin_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A fresh copy that the quick start was followed in."""
    copy = Checkout(tmp_path_factory.mktemp("fresh"), bin_dir, hub_address, HF_TOKEN="hf_good")
    result = copy.run(fill_in(QUICK_START, copy))
    assert result.returncode == 0, result.stdout + result.stderr
    return copy


def fill_in(lines: str, copy: Checkout) -> str:
    """Puts paths in the places of those that are examples."""
    models = copy.root / "models"
    filled = lines.replace("/path/to/base/model", str(models / BASE.replace("/", "--")))
    filled = filled.replace("/path/to/finetune/model", str(models / TUNE.replace("/", "--")))
    return filled.replace("/tmp/output", str(copy.root.parent / "output"))


def write_pair(folder: Path) -> None:
    """Writes two files of one size for the BitX tool, and removes what it made of earlier ones."""
    for name in ("exp.zst", "mantissa.zst", "copy2.bin"):
        (folder / name).unlink(missing_ok=True)
    for name, seed in (("file1.bin", 1), ("file2.bin", 2)):
        (folder / name).write_bytes(random.Random(seed).randbytes(1 << 16))


def same_files(original: Path, copy: Path) -> bool:
    """Whether two directories hold the same files with the same bytes."""
    names = sorted(str(path.relative_to(original)) for path in original.rglob("*") if path.is_file())
    found = sorted(str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file())
    return names == found and filecmp.cmpfiles(original, copy, names, shallow=False)[0] == names


def test_quick_start(checkout: Checkout) -> None:
    assert same_files(checkout.root / "models" / TUNE.replace("/", "--"), checkout.root.parent / "output")
    checkout.run("git init -q")
    strange = set(checkout.run("git ls-files --others --exclude-standard").stdout.split()) - checkout.files
    assert strange == set(), "what the quick start makes is ignored by git"


@pytest.mark.parametrize("name", BLOCKS)
def test_described_commands(name: str, checkout: Checkout) -> None:
    write_pair(checkout.root)
    result = checkout.run(fill_in(BLOCKS[name], checkout))
    assert result.returncode == 0, result.stdout + result.stderr
    folder = re.search(r"^cd (\w+)$", BLOCKS[name], re.MULTILINE)
    for made in MADE[name]:
        assert (checkout.root / (folder[1] if folder else ".") / made).stat().st_size > 0, made


def test_drop_cache(checkout: Checkout) -> None:
    """It works as root; anybody else, and root where the kernel does not allow it, is told."""
    result = checkout.run(DROPPED_CACHE)
    if os.geteuid() != 0:
        assert result.returncode == 2 and "--drop-cache needs root: run it with sudo" in result.stderr
    elif not os.access(DROP_CACHES, os.W_OK):
        assert result.returncode == 1 and "drop_caches cannot be written" in result.stderr
    else:
        assert result.returncode == 0, result.stderr
        lines = (checkout.root / "analysis/restore_results/restore_throughput.csv").read_text().splitlines()
        assert lines[-1].endswith("True")


def test_notebook_opens(checkout: Checkout, tmp_path: Path) -> None:
    """Jupyter serves the notebook; test_experiment.py executes its cells."""
    settings = tmp_path / "jupyter_server_config.py"
    settings.write_text("c.ServerApp.allow_root = True\nc.ServerApp.open_browser = False\nc.ServerApp.port = 0\n")
    variables = checkout.environment | {"JUPYTER_CONFIG_DIR": str(tmp_path), "JUPYTER_RUNTIME_DIR": str(tmp_path)}
    log = tmp_path / "log"
    with log.open("w") as file:
        folder = checkout.root / "experiment"
        server = subprocess.Popen(NOTEBOOK.split(), cwd=folder, env=variables, stdout=file, stderr=file)
    try:
        with urllib.request.urlopen(wait_for_address(log, server)) as answer:
            assert json.load(answer)["type"] == "notebook"
    finally:
        server.terminate()
        server.wait(30)


def wait_for_address(log: Path, server: subprocess.Popen[bytes]) -> str:
    """Waits for a server to print where it is; returns where it describes the notebook."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        if found := re.search(r"http://127\.0\.0\.1:(\d+)/\S*\?token=(\w+)", log.read_text()):
            return f"http://127.0.0.1:{found[1]}/api/contents/plots.ipynb?token={found[2]}"
        time.sleep(0.2)
    raise AssertionError(log.read_text())


# README.md

# Commands of README.md that are proven elsewhere, and where.
ELSEWHERE = {
    "make test": "this",
    "make demo": "test_demo",
    "RUST_LOG=info ./target/release/restore ./config.json org/model /tmp/output": "test_quick_start, another model",
}


def readme_commands() -> list[str]:
    """Lists the lines of README.md that are commands: indented by four, and beginning with a program."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    lines = [line[4:].partition(" # ")[0].strip() for line in text.splitlines() if line.startswith("    ")]
    return [
        line for line in lines if re.match(r"(RUST_LOG=\S+ )?(make|cargo|python3|pip3?|jupyter|\.{1,2}/)\b|\./", line)
    ]


def test_readme(checkout: Checkout) -> None:
    commands = [command for command in readme_commands() if command not in ELSEWHERE]
    assert len(commands) >= 5, "README.md is read"
    assert set(ELSEWHERE) <= set(readme_commands()), "what is proven elsewhere is still there"
    write_pair(checkout.root)
    for command in commands:
        result = checkout.run(command)
        assert result.returncode == 0, f"{command}\n{result.stdout}{result.stderr}"


def test_demo(bin_dir: Path, tmp_path: Path) -> None:
    """What `make demo` runs after the build."""
    command = [bin_dir / "examples/demo", "--dir", tmp_path / "demo"]
    result = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "every byte came back" in result.stdout


def test_default_settings_need_no_token(hub_address: str, bin_dir: Path, tmp_path: Path) -> None:
    """The repository's own config.json and test_models.txt."""
    copy = Checkout(tmp_path, bin_dir, hub_address)
    result = copy.run("./setup_test_models.sh && cargo build --release && ./target/release/zipllm ./config.json")
    assert result.returncode == 0, result.stderr
    models = read_models([REPOSITORY / "test_models.txt"])
    assert all((copy.root / "models" / model.replace("/", "--") / "model.safetensors").is_file() for model in models)


def test_demo_set_up(bin_dir: Path, tmp_path: Path) -> None:
    """`setup_test_models.sh --demo` and what it says comes next."""
    copy = Checkout(tmp_path, bin_dir, "http://127.0.0.1:9")
    result = copy.run("./setup_test_models.sh --demo")
    assert result.returncode == 0, result.stderr
    said = re.search(r"^Ready: (.+)$", result.stdout, re.MULTILINE)
    assert said, result.stdout
    stored = copy.run(said[1])
    assert stored.returncode == 0, stored.stderr
