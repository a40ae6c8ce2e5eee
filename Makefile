# Two commands do everything: `make run` and `make test`. They need Python 3.11+ (venv, pip) and make.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
UV := $(shell command -v uv 2>/dev/null || echo .make/uv/bin/uv)
CI ?=
# CI runs the slow tests too; a laptop does not.
MARKS := $(if $(filter true,$(CI)),,-m "not slow")

.PHONY: run test check format lock bench clean setup setup-dev

run: setup
	$(PY) -m src.prepare
	exec $(PY) -m src.main

# MLflow's own UI on port 5000, beside the running service; another port: make mlflow ARGS="--port 5001"
.PHONY: mlflow
mlflow: setup
	exec $(PY) -m src.cli mlflow $(ARGS)

test: setup-dev
	$(PY) -m pytest $(MARKS) -n 2 --dist loadfile $(ARGS)

check: setup-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

# make bench, or a part: make bench W=W1; PEERS=1 measures other servers too, each in an environment below .make/peers
bench: setup-dev
	$(PY) -m benchmarks $(if $(W),--workload $(W)) $(if $(filter-out 0,$(PEERS)),--peers) $(ARGS)

# Every architecture against a direct call of the library; writes docs/architectures.md, 1 where one is lost
.PHONY: coverage-matrix
coverage-matrix: setup-dev
	$(PY) -m tests.architectures $(ARGS)

format: setup-dev
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

setup: $(VENV)/.installed $(VENV)/bin/aiml
setup-dev: $(VENV)/.installed-dev

$(VENV)/.installed: requirements.lock.txt
	@$(MAKE) --no-print-directory bootstrap
	$(UV) pip install --quiet --compile-bytecode --python $(PY) --require-hashes -r requirements.lock.txt
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed tests/requirements.lock.txt
	$(UV) pip install --quiet --compile-bytecode --python $(PY) --require-hashes -r tests/requirements.lock.txt
	@touch $@

# `aiml` from any folder: the code is found where this Makefile is.
$(VENV)/bin/aiml: Makefile | $(VENV)/.installed
	@printf '%s\n' '#!/bin/sh' \
		'exec "$(CURDIR)/$(PY)" -P -c "import sys; sys.path.insert(0, r\"$(CURDIR)\"); from src.cli import main; main()" "$$@"' > $@
	@chmod +x $@

.PHONY: bootstrap
bootstrap:
	@command -v $(UV) >/dev/null 2>&1 || { echo "setting up uv in .make/uv"; \
		$(PYTHON) -m venv .make/uv && .make/uv/bin/pip install --quiet uv; }
	@test -x $(PY) || $(UV) venv --quiet --python $(PYTHON) $(VENV)

# Both lock files from pyproject.toml. uv.lock is committed without addresses: deploy/strip_lock.py says why.
lock: bootstrap
	$(UV) lock $(ARGS)
	$(UV) export --quiet --frozen --no-dev --no-emit-project --no-header --format requirements-txt --output-file requirements.lock.txt
	$(UV) export --quiet --frozen --only-dev --no-emit-project --no-header --format requirements-txt --output-file tests/requirements.lock.txt
	$(PY) deploy/strip_lock.py uv.lock

clean:
	rm -rf $(VENV) .make .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
