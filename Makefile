# `make demo` and `make test` are enough on a fresh machine: each sets up its environment first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup demo test coverage quick lint format bench gpu clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[all,dev]"
	# Renders the demo. Installed without its dependency, which only plays through loudspeakers and must be compiled.
	$(BIN)/pip install --quiet --constraint constraints.txt --no-deps tinysoundfont
	touch $@

# Renders a short piece, transcribes it, then scores and draws the result. Uses no network.
demo: $(READY)
	$(BIN)/mt3 demo

# Two at a time: most of the time is compilation on one processor. The tests of a file stay together to share fixtures,
# and files run in the order that `tests/conftest.py` gives them.
TEST_PROCESSES ?= 2
DISTRIBUTION := --dist loadfile --no-loadscope-reorder
test: $(READY)
	$(BIN)/pytest --numprocesses $(TEST_PROCESSES) $(DISTRIBUTION)

# The same, and lists the lines that no test runs. Counting them doubles the time of tests that run only Python.
coverage: $(READY)
	$(BIN)/pytest --cov --cov-report=term:skip-covered --numprocesses $(TEST_PROCESSES) $(DISTRIBUTION)

# Without the slow tests, for use between edits.
quick: $(READY)
	$(BIN)/pytest -m "not slow" -x -q

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Speed and memory on this machine; the source of the figures in docs/performance.md.
bench: $(READY)
	$(BIN)/python benchmarks/speed.py

# For a machine with a GPU, with the packages installed there: GPU_PYTHON=/path/to/python make gpu
GPU_PYTHON ?= python3
gpu:
	PYTHONPATH=. $(GPU_PYTHON) benchmarks/gpu.py

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .coverage demo_output
