# `make help` lists the targets.

CARGO ?= cargo
DEMO_DIR ?= target/demo
# For `make measure`: a directory of model directories, and where to work.
MODELS ?=
WORK ?= target/whole_job

.DEFAULT_GOAL := help
.PHONY: help build demo test test-full lint bench measure

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build the binaries and examples, optimised
	$(CARGO) build --release --locked --bins --examples

demo: build ## store and restore a small family in target/demo, compare every byte
	./target/release/examples/demo --dir $(DEMO_DIR)

test: ## run all tests
	$(CARGO) test --locked

test-full: ## run all tests, the slow ones too
	$(CARGO) test --locked -- --include-ignored

lint: ## check formatting and clippy; warnings are errors
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings

bench: ## run the benchmarks of kernels and codecs
	$(CARGO) bench --locked

measure: build ## time the whole job on the models in MODELS=DIR, against cp and zstd
	./target/release/examples/whole_job --models-dir $(MODELS) --work-dir $(WORK) --out target/whole_job.json
