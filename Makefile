# `make help` lists the targets.

CARGO ?= cargo
DEMO_DIR ?= target/demo
# For `make measure`: a directory of model directories, and where to work.
MODELS ?=
WORK ?= target/whole_job
CODEC ?= auto

.DEFAULT_GOAL := help
.PHONY: help build demo test rust-test python-test test-full lint deny cover mutants bench measure families search compare

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build the binaries and examples, optimised
	$(CARGO) build --release --locked --bins --examples

demo: build ## store and restore a small family in target/demo, compare every byte
	./target/release/examples/demo --dir $(DEMO_DIR)

test: rust-test python-test ## run all tests

rust-test: ## run the tests of the crate
	$(CARGO) test --locked

# The scripts are tested with the programs that `cargo test` built.
python-test: .venv/installed rust-test ## run the tests of the scripts, in a virtual environment in .venv
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	ZIPLLM_BIN_DIR=$(CURDIR)/target/debug .venv/bin/pytest

.venv/installed: requirements.txt requirements-dev.txt
	python3 -m venv .venv
	.venv/bin/pip install --quiet --requirement requirements-dev.txt
	touch $@

test-full: test ## run all tests, the documented commands with the real cargo, a build without `hub`, and NEON by qemu
	ZIPLLM_REAL_CARGO=1 ZIPLLM_BIN_DIR=$(CURDIR)/target/debug .venv/bin/pytest tests/python/test_documented_commands.py
	$(CARGO) test --locked --no-default-features --test lean
	$(CARGO) test --locked --manifest-path tools/mutants/Cargo.toml
	tools/test_neon.sh

lint: deny ## check formatting, clippy (warnings are errors) and dependencies
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) clippy --locked --bins --no-default-features -- -D warnings
	$(CARGO) fmt --check --manifest-path experiment/fastcdc_exp/Cargo.toml
	$(CARGO) fmt --check --manifest-path tools/mutants/Cargo.toml

# Duplicates are told by `cargo deny check bans`; they are warnings, for others' crates decide them.
DENY = $(CARGO) deny --offline --log-level error --config $(CURDIR)/deny.toml --manifest-path $(1) check \
	--hide-inclusion-graph --allow duplicate --allow license-not-encountered licenses bans sources
MANIFESTS := Cargo.toml experiment/fastcdc_exp/Cargo.toml fuzz/Cargo.toml tools/mutants/Cargo.toml
deny: ## check licences and sources of the dependencies, if cargo-deny is installed
	@if ! $(CARGO) deny --version >/dev/null 2>&1; then \
		echo "SKIPPED: licences of the dependencies are not checked (cargo install --locked cargo-deny)"; exit 0; fi; \
	set -e; for manifest in $(MANIFESTS); do \
		$(CARGO) fetch --locked --quiet --manifest-path $$manifest; \
		$(call DENY,$$manifest); done

cover: ## measure which lines the tests reach (rustup component add llvm-tools)
	tools/coverage.sh

# MUTATE names modules, as "codec store/fs"; all that keep data if it is empty.
MUTATE ?=
mutants: ## tell which mutants of the modules that keep data no test catches (an hour; MUTATE="codec name" for some)
	tools/mutants.py $(MUTATE)

bench: ## run the benchmarks of kernels and codecs
	$(CARGO) bench --locked

measure: build ## time the whole job on the models in MODELS=DIR, against cp and zstd
	./target/release/examples/whole_job --models-dir $(MODELS) --work-dir $(WORK) --codec $(CODEC) --out target/whole_job.json

# BASE is the directory of the base within MODELS; FINE_TUNE that of the fine-tune which is renamed, cut and resized.
BASE ?=
FINE_TUNE ?=
families: build ## measure how well bases are found on the models in MODELS=DIR with their BASE=NAME
	./target/release/examples/family_benchmark --models-dir $(MODELS) --base $(BASE) \
		$(if $(FINE_TUNE),--fine-tune $(FINE_TUNE)) --work-dir target/families --out docs/results/families.json

search: build ## measure the search for bases among 100,000 simulated tensors
	./target/release/examples/sketch_search --dir target/search --family 25 --out docs/results/search.json

# The family of MODELS=DIR (one directory a model) or CONFIG=FILE (a zipllm config.json), if one is given, then the
# generated one; LABEL is the former's name in table and figure. Each replaces its earlier results.
CONFIG ?=
LABEL ?= real family
REPEAT ?= 3
FAMILY := target/family
COMPARE = .venv/bin/python experiment/compare.py --output docs/results --keep-last --repeat $(REPEAT) \
	--figure docs/data_reduction_ratio_vs_throughput.png
compare: build .venv/compared $(FAMILY)/config.json ## compare all methods on MODELS=DIR and a generated 1 GB (installs torch)
	$(if $(MODELS)$(CONFIG),$(COMPARE) --label "$(LABEL)" $(if $(MODELS),--models-dir $(MODELS),--config $(CONFIG)))
	$(COMPARE) --label "generated family" --config $(FAMILY)/config.json

.venv/compared: .venv/installed requirements-compare.txt
	.venv/bin/pip install --quiet --requirement requirements-compare.txt
	touch $@

$(FAMILY)/config.json: | build
	./target/release/examples/generate_family $(FAMILY)
