# Everything a fresh Debian 12 or Ubuntu 24.04 needs: system packages, a virtual environment, the editable install.
# Each step is a stamp inside .venv, so a second run starts at once. PYTHON=... picks another interpreter (3.11 to 3.13).

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# The veth device makes interfaces: root, sudo, or (without either) a namespace of our own behind a relay.
ROOT   := $(shell [ "$$(id -u)" = 0 ] || command -v sudo)
RELAY  := $(if $(filter-out 0,$(shell id -u)),$(if $(ROOT),,--publish 127.0.0.1:8080))

BUILD_FILES := pyproject.toml setup.py $(filter-out dataplane/pydpdk/_dpdk.c,$(wildcard dataplane/pydpdk/*.py dataplane/pydpdk/*.c dataplane/pydpdk/*.h))

.PHONY: help serve test lint bench fuzz venv clean
.NOTPARALLEL:
.DELETE_ON_ERROR:

help:
	@echo 'make serve   serve HTTP through DPDK; prints the URL'
	@echo 'make test    run the tests'
	@echo 'make lint    ruff and mypy'
	@echo 'make bench   compare with nginx, memcached, asyncio and uvloop; refreshes the tables in README.md and docs/ (ARGS=--quick to try it)'
	@echo 'make fuzz    search for inputs that break the stack: MODE=python (by coverage) or compiled (at speed), SECONDS=60'
	@echo 'make clean   remove the virtual environment and everything built'

serve: $(VENV)/mpserve.stamp
	@$(ROOT) $(BIN)/mpserve http $(RELAY) $(ARGS)

test: $(VENV)/test.stamp
	@$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/lint.stamp
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy -p mpserve -p pydpdk -p benchmarks
	@$(BIN)/mypy --explicit-package-bases tests examples

bench: $(VENV)/bench.stamp
	@$(ROOT) $(BIN)/python -m benchmarks.documents $(ARGS)

MODE    ?= compiled
SECONDS ?= 60
fuzz: $(VENV)/fuzz.stamp
	@PYTHONPATH=tests exec $(BIN)/python -m fuzz --mode $(MODE) --seconds $(SECONDS) $(ARGS)

venv: $(VENV)/mpserve.stamp

# One list of packages a stamp; the script asks dpkg first and calls apt only for what is missing.
$(VENV)/mpserve.stamp: $(BUILD_FILES) .ci/setup
	@.ci/setup mpserve "$(PYTHON)"
	@touch $@

$(VENV)/test.stamp $(VENV)/lint.stamp $(VENV)/bench.stamp $(VENV)/fuzz.stamp: $(VENV)/%.stamp: $(VENV)/mpserve.stamp
	@.ci/setup $* "$(PYTHON)"
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .fuzz .coverage htmlcov
	rm -f dataplane/pydpdk/_dpdk.c dataplane/pydpdk/*.so dataplane/pydpdk/*.o
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
