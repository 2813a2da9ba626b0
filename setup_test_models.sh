#!/usr/bin/env bash
# Sets up what `zipllm ./config.json` needs: Python packages in a virtual environment, the models of the list, and the
# mapping of base models to fine-tunes. Safe to run again: what is there is kept.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: ./setup_test_models.sh [--config FILE] [--demo]

  --config FILE  settings to follow (default: config.json beside this script)
  --demo         write a small generated family to ./demo instead, with settings of its own; needs no network
  --help         this text

HF_TOKEN is needed for gated models only; HF_ENDPOINT and HF_HOME are honoured.
VENV names the virtual environment (default: .venv beside this script).
TEXT
}

fail() {
    echo "setup_test_models.sh: $1" >&2
    exit "${2:-1}"
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
config=$root/config.json
demo=false
while [ $# -gt 0 ]; do
    case $1 in
    --config) [ $# -ge 2 ] || fail "--config needs a file" 2; config=$2; shift 2 ;;
    --demo) demo=true; shift ;;
    --help | -h) usage; exit 0 ;;
    *) usage >&2; fail "unknown option: $1" 2 ;;
    esac
done
command -v python3 > /dev/null || fail "python3 is needed (3.11 or newer)"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "python3 has to be 3.11 or newer"

# Prints a path of the settings, resolved against their folder.
setting() {
    PYTHONPATH=$root/py_lib python3 - "$config" "$1" <<'PYTHON'
import pathlib, sys
from settings import path_setting, read_object
file, key = pathlib.Path(sys.argv[1]), sys.argv[2]
try:
    print(path_setting(file, read_object(file), key))
except (OSError, ValueError) as error:
    sys.exit(f"setup_test_models.sh: {error}")
PYTHON
}

if $demo; then
    mkdir -p "$root/demo"
    config=$root/demo/config.json
    cat > "$config" <<'JSON'
{
  "model_dir": "./models",
  "storage_dir": "./storage",
  "models_to_process": "./test_models.txt",
  "base_ft_path": "./base_ft.json"
}
JSON
    python3 "$root/py_lib/generate_demo_family.py" "$root/demo/models" "$root/demo/test_models.txt"
    python3 "$root/py_lib/generate_base_ft.py" "$root/demo/test_models.txt" "$root/demo/base_ft.json"
else
    model_dir=$(setting model_dir) || exit 2
    models=$(setting models_to_process) || exit 2
    mapping=$(setting base_ft_path) || exit 2
    [ -f "$models" ] || fail "$models: no such file (\"models_to_process\" of $config)" 2

    venv=${VENV:-$root/.venv}
    # Nothing may be installed outside a virtual environment; one that was left half made has no pip.
    if ! [ -f "$venv/pyvenv.cfg" ] || ! "$venv/bin/python" -m pip --version > /dev/null 2>&1; then
        [ ! -e "$venv" ] || [ -f "$venv/pyvenv.cfg" ] || fail "$venv is there and is no virtual environment" 2
        python3 -m venv "$venv" ||
            fail "cannot make the virtual environment $venv (on Debian it needs the package python3-venv)"
    fi
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$root/requirements.txt"
    "$venv/bin/python" "$root/py_lib/generate_base_ft.py" "$models" "$mapping"
    "$venv/bin/python" "$root/py_lib/download.py" --models_txts "$models" --output_dir "$model_dir" \
        --check_already_downloaded
fi
echo "Ready: cargo build --release && ./target/release/zipllm ${config/#$root/.}"
