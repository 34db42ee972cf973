# Everything here works in a clean clone, without activating an environment.
#
#   make run ARGS="--port 9000"
#   make test PYTEST_ARGS="tests/test_pump.py -k cancel"
#   make test PYTHON=python3.13 COVERAGE=yes
#
# PYTHON chooses the interpreter and gets an environment of its own (.venv-python3.13); without it, .venv is made
# with the first Python of 3.11 or newer that works.

PYTHON ?=
ARGS ?=
COVERAGE ?=
PYTEST_ARGS ?=

VENV := .venv$(addprefix -,$(notdir $(PYTHON)))
python := $(VENV)/bin/python
pip_install := $(python) -m pip install --quiet --disable-pip-version-check

# It takes half as long again: asked for by COVERAGE=yes.
coverage := $(if $(COVERAGE),--cov --cov-report=term --cov-fail-under=95)

# Half as many again as there are processors, since many tests wait: for a browser, a process, a server.
workers := $(shell echo $$(( ($$(getconf _NPROCESSORS_ONLN) * 3 + 1) / 2 )))

.DEFAULT_GOAL := help
.PHONY: help run test lint types docs bench bench-peers clean system-packages
.DELETE_ON_ERROR:

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' Makefile

run: $(VENV)/.installed ## start the demo on http://127.0.0.1:8000 (ARGS="--port 9000")
	@exec $(python) -m rawstream $(ARGS)

test: system-packages $(VENV)/.installed-test ## run all tests (PYTHON=python3.13, PYTEST_ARGS="tests/test_sse.py", COVERAGE=yes)
	$(python) -m pytest -n $(workers) --dist worksteal $(coverage) $(PYTEST_ARGS)

lint: $(VENV)/.installed-test ## ruff: rules and format
	$(python) -m ruff check .
	$(python) -m ruff format --check .

types: $(VENV)/.installed-test ## mypy --strict
	$(python) -m mypy --strict

docs: $(VENV)/.installed-docs ## build the documentation's site into site/ (open site/index.html)
	@rm -rf site
	$(python) -m sphinx --fail-on-warning --keep-going --quiet --fresh-env -c docs -d $(VENV)/doctrees . site

bench: $(VENV)/.installed-bench ## run all benchmarks, in half an hour (ARGS="latency --quick")
	$(python) -m benchmarks $(or $(strip $(ARGS)),all)

bench-peers: ## install the servers that the benchmarks measure besides those of pip (Debian, as root)
	@.ci/bench-peers

system-packages: ## install the browser, fonts and servers that the tests need (Debian, as root)
	@.ci/system-packages

clean: ## remove environments, caches and builds (measured results stay)
	rm -rf .venv .venv-* build dist site .coverage .coverage.* htmlcov .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each stamp is renewed when pyproject.toml changes. The package is installed editable: the sources at hand run.

$(VENV)/.created:
	@interpreter=$$(.ci/find-python $(PYTHON)) && \
	echo "Making $(VENV) with $$interpreter" && \
	"$$interpreter" -m venv --clear $(VENV)
	@touch $@

$(VENV)/.installed: pyproject.toml | $(VENV)/.created
	@echo "Installing rawstream into $(VENV)"
	@$(pip_install) --editable .
	@touch $@

extras := $(addprefix $(VENV)/.installed-,test docs bench)
$(extras): $(VENV)/.installed-%: pyproject.toml | $(VENV)/.created
	@echo "Installing rawstream[$*] into $(VENV)"
	@$(pip_install) --editable '.[$*]'
	@touch $@ $(VENV)/.installed
