# Two commands on a fresh machine: `make demo` and `make test`. Each makes .venv and installs what
# it needs; Python 3.11 or newer and make are all that must be there.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python -m

.PHONY: demo test test-gpu lint format bench clean

demo: $(VENV)/.installed
	rm -rf demo-out
	$(RUN) faceidx demo --out demo-out

# One thread a worker: two workers that fight over two cores are slower than one. --dist loadscope
# keeps fixtures that train a small model in one worker.
test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(RUN) pytest -n auto --dist loadscope

# On a machine with a GPU, what only a GPU can show.
test-gpu: $(VENV)/.installed-dev
	FACEIDX_TEST_GPU=1 $(RUN) pytest tests/gpu

lint: $(VENV)/.installed-dev
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) mypy

format: $(VENV)/.installed-dev
	$(RUN) ruff format .
	$(RUN) ruff check --fix .

bench: $(VENV)/.installed-dev
	for script in benchmarks/*.py; do ORT_DISABLE_TELEMETRY=1 $(BIN)/python $$script || exit 1; done

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)
	$(RUN) pip install --quiet --upgrade pip
	$(RUN) pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(RUN) pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) demo-out build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
