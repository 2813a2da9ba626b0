#!/bin/sh
# Measures which lines of the modules that keep data the tests reach, in a target directory of its own.
#
#     rustup component add llvm-tools
#     tools/coverage.sh
#
# LLVM_BIN=DIR names another place of llvm-cov and llvm-profdata. Prints a line a module, and writes the lines that nothing reached to target/coverage/uncovered.txt. Code of the modules'
# own unit tests counts neither as reached nor as unreached.
set -eu
cd "$(dirname "$0")/.."
PATH=${LLVM_BIN:-$(rustc --print target-libdir)/../bin}:$PATH
CARGO=${CARGO:-cargo}
DIR=${COVERAGE_DIR:-$PWD/target/coverage}
SUITES=${SUITES:-"hostile_files forged errors golden versions cli operations upkeep bombs golden_payloads damage faults
crash_images locks kill config job round_trips write_order sources determinism"}
export CARGO_TARGET_DIR="$DIR/build" RUSTFLAGS="-C instrument-coverage ${RUSTFLAGS:-}"
# Processes add to a few files of each program; those that are killed add nothing.
export LLVM_PROFILE_FILE="$DIR/raw/%8m.profraw"
export CARGO_PROFILE_DEV_OPT_LEVEL=1 CARGO_PROFILE_DEV_DEBUG=0 CARGO_INCREMENTAL=0

rm -rf "$DIR/raw"
mkdir -p "$DIR/raw"
set -- --lib
for suite in $SUITES; do set -- "$@" --test "$suite"; done
$CARGO build --locked --examples
$CARGO test --locked --no-fail-fast "$@" > "$DIR/tests.log" 2>&1 || { tail -n 30 "$DIR/tests.log"; echo "some tests failed" >&2; }

llvm-profdata merge --failure-mode=all --sparse -o "$DIR/all.profdata" "$DIR"/raw/*.profraw
PROGRAMS="$CARGO_TARGET_DIR/debug/zipllm $CARGO_TARGET_DIR/debug/restore"
for program in "$CARGO_TARGET_DIR"/debug/deps/*; do
    if [ -x "$program" ] && [ -f "$program" ] && [ "${program%.*}" = "$program" ]; then PROGRAMS="$PROGRAMS $program"; fi
done
OBJECTS=
for program in $PROGRAMS; do OBJECTS="$OBJECTS --object $program"; done
# shellcheck disable=SC2086
llvm-cov export --format=lcov --instr-profile "$DIR/all.profdata" $OBJECTS > "$DIR/lcov.info" 2> "$DIR/export.log"
python3 tools/coverage.py "$DIR/lcov.info" > "$DIR/modules.txt" 2> "$DIR/uncovered.txt"
cat "$DIR/modules.txt"
