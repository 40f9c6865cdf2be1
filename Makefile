# `make demo` and `make test` are all a fresh machine needs: each sets up what it runs with.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup demo test coverage quick lint format bench gpu clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[all,dev]"
	# Renders the demonstration. Without its dependency, which only plays on loudspeakers and has to be compiled.
	$(BIN)/pip install --quiet --constraint constraints.txt --no-deps tinysoundfont
	touch $@

# Renders a short piece, transcribes it, scores and draws the result. Uses no network.
# Until weights of our own ship, those that lie beside the checkout serve where no others were named.
SHARED_MODEL := $(if $(MT3_MODEL)$(wildcard models/mt3),,$(wildcard ../shared/mt3_checkpoint))
demo: $(READY)
	$(if $(SHARED_MODEL),MT3_MODEL=$(SHARED_MODEL)) $(BIN)/mt3 demo

# Two at a time: most of the wait is for compiling, on one processor. A file's tests stay together, for what they share.
TEST_PROCESSES ?= 2
test: $(READY)
	$(BIN)/pytest --numprocesses $(TEST_PROCESSES) --dist loadfile

# The same, telling which lines no test runs. Counting them makes the tests in Python alone take twice as long.
coverage: $(READY)
	$(BIN)/pytest --cov --cov-report=term:skip-covered --numprocesses $(TEST_PROCESSES) --dist loadfile

# Without the slow tests, for the time between two edits.
quick: $(READY)
	$(BIN)/pytest -m "not slow" -x -q

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Speed and memory on this machine; the figures in docs/performance.md come from here.
bench: $(READY)
	$(BIN)/python benchmarks/speed.py

# On a machine with a GPU, with whatever is installed there: GPU_PYTHON=/path/to/python make gpu
GPU_PYTHON ?= python3
gpu:
	PYTHONPATH=. $(GPU_PYTHON) benchmarks/gpu.py

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .coverage demo_output
