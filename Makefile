# Every target sets up what it needs: .venv with this folder installed in it, editable. Doing it again is free until
# pyproject.toml, setup.py or the constraints change.
#
# All installs go through constraints.txt, because a plain `torch` on Linux is the CUDA build, several gigabytes.
# On a GPU machine leave the pins out, once, in a fresh set-up:   make clean && make demo CONSTRAINTS=
# Another interpreter (3.10 or newer):                            make clean && make test PYTHON=python3.12
# Arguments for the command behind a target:                      make test ARGS="-k pooling"
#
# The variables are set on make's command line only; the environment does not change them.

PYTHON = python3
CONSTRAINTS = constraints.txt
WORKERS = 2
ARGS =

VENV = .venv
BIN = $(VENV)/bin
INPUTS = pyproject.toml setup.py $(CONSTRAINTS)
INSTALL = $(BIN)/python -m pip install --disable-pip-version-check $(if $(CONSTRAINTS),-c $(CONSTRAINTS))

.DELETE_ON_ERROR:
.PHONY: help demo test check format engines browser bench clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile

demo: $(VENV)/installed-demo  ## segment the MNI152 brain: dense, conservative, aggressive, with a table and a picture
	$(BIN)/nansparse demo $(ARGS)

test: $(VENV)/installed-dev  ## run the tests
	$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

check: $(VENV)/installed-dev  ## file lengths, lint and docstrings, format, types
	$(BIN)/python tools/check_file_length.py nansparse adapters
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/installed-dev  ## put the code into the form that `make check` asks for
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

engines: $(VENV)/built-torch-scatter $(VENV)/built-minkowski  ## build the engines that come without a wheel, for `make test`

browser:  ## install the browser in which the HTML report is tested (Debian, as root)
	tools/ensure_browser.sh

bench: $(VENV)/installed-demo  ## measure this machine; `make bench ARGS=--help` lists what can be measured
	$(BIN)/python -m benchmarks $(ARGS)

clean:  ## remove the set-up and the caches
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

# An extra is installed when its stamp is newer than what decides over it.
$(VENV)/installed-%: $(INPUTS) | $(BIN)/python
	$(INSTALL) -e '.[$*]'
	@touch $@

# Compiled against the torch that is installed, so no wheel is kept for another one; a few minutes each, and a third more
# with the debugging symbols that Python's own flags ask for. Hence CFLAGS, for tests and not for speed: what setup.py adds
# comes behind them, so that the compiler has the last word. The path is for scripts that call `pip` and `python` by
# name.
COMPILE = PATH="$(abspath $(BIN)):$$PATH" MAX_JOBS=$(WORKERS) DIST_EXTRA_CONFIG="$(abspath $(VENV)/build.cfg)" \
    CXXFLAGS="-O1 -DNDEBUG" CFLAGS="-O1 -DNDEBUG" \
    CXX="$(abspath tools/g++-all-at-once)" \
    $(INSTALL) --no-build-isolation --no-cache-dir --no-deps --force-reinstall --use-pep517

$(VENV)/built-torch-scatter: $(CONSTRAINTS) $(VENV)/build.cfg | $(VENV)/installed-dev
	$(COMPILE) torch-scatter==2.1.2
	@touch $@

$(VENV)/built-minkowski: $(CONSTRAINTS) $(VENV)/build.cfg | $(VENV)/installed-dev
	tools/ensure_openblas.sh
	$(COMPILE) -C--global-option=--blas=openblas -C--global-option=--cpu_only minkowskiengine==0.5.4
	@touch $@

$(VENV)/build.cfg: | $(BIN)/python
	printf '[build_ext]\nparallel=$(WORKERS)\n' > $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	    echo 'nansparse needs Python 3.10 or newer. Name one: make ... PYTHON=python3.12' \
	         '(tried: $(PYTHON), which is' "$$($(PYTHON) --version 2>&1 | head -n 1))" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
