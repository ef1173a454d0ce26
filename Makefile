# `make demo` and `make test` need Python 3.11 or newer and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --root-user-action=ignore

# Two processes, and the files with the longest tests first, see tests/conftest.py.
TWO := -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo demo-all test slow lint clean

# Made once, and again when the dependencies change.
$(VENV)/.installed: setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	@echo "installing into $(VENV), once"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --upgrade pip
	@$(PIP) --editable '.[test,dev]'
	@touch $@

demo: $(VENV)/.installed
	@$(BIN)/python -m launch.demo --workdir=runs/demo

demo-all: $(VENV)/.installed
	@$(BIN)/python -m launch.demo --workdir=runs/demo --all

test: $(VENV)/.installed
	$(BIN)/python -m pytest $(TWO)

slow: $(VENV)/.installed
	$(BIN)/python -m pytest -m slow $(TWO)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) runs
