# `make help` lists the targets.

CARGO ?= cargo
DEMO_DIR ?= target/demo

.DEFAULT_GOAL := help
.PHONY: help build demo test lint bench

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build the binaries and examples, optimised
	$(CARGO) build --release --locked --bins --examples

demo: build ## store and restore a small family in target/demo, compare every byte
	./target/release/examples/demo --dir $(DEMO_DIR)

test: ## run all tests
	$(CARGO) test --locked

lint: ## check formatting and clippy; warnings are errors
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings

bench: ## run the benchmarks of kernels and codecs
	$(CARGO) bench --locked
