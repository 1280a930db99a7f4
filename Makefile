# Everything a person runs here. It needs make and Python 3.11 or newer; the rest goes into .venv/.

ARGS ?=
PYTHON_FITS := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3.14 python3; do \
	"$$python" -c '$(PYTHON_FITS)' >/dev/null 2>&1 && { echo "$$python"; break; }; done)

# Tools start as modules, not by their scripts in bin/: a script's first line holds this folder's path.
VENV_PYTHON := .venv/bin/python
PIP_QUIET := --quiet --quiet --no-input --disable-pip-version-check
LOCAL_PYTHON := .venv-local/bin/python
RUNTIME := .venv/.runtime-installed
DEV := .venv/.dev-installed
LOCAL := .venv-local/.installed

# Wheels only, each by its hash; then this package itself, by the build backend the lock brought.
# Given the environment, the locks and how long it takes.
install = \
	echo 'Installing requirements/$(2:=.lock) into $(1) (about $(3) the first time)'; \
	$(1)/bin/python -m pip install $(PIP_QUIET) --only-binary :all: --require-hashes \
		$(2:%=--requirement requirements/%.lock) && \
	$(1)/bin/python -m pip install $(PIP_QUIET) --no-deps --no-build-isolation --editable . && \
	echo '$(CURDIR)' >$(1)/.folder

make_venv = \
	'$(PYTHON)' -c '$(PYTHON_FITS)' 2>/dev/null || { \
		echo 'Calotype needs Python 3.11 or newer with its venv module$(if $(PYTHON),; $(PYTHON) is not that).' >&2; \
		echo 'Install one (Debian: python3 and python3-venv) or name it: make PYTHON=/path/to/python3.11 …' >&2; \
		exit 1; }; \
	'$(PYTHON)' -m venv --clear $(1)

# One gate of `make check`: its name, then its command.
gate = \
	printf '\n── %s\n' '$(1)'; \
	$(2) || { printf '\nmake check stopped at "%s": mend what it shows and run it again.\n' '$(1)'; exit 1; }

export PIP_ROOT_USER_ACTION := ignore

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: demo serve test test-local chaos soak fuzz fuzz-api check audit sbom bench bench-peers bench-local docs dist lock clean help

# An environment without its Python, or copied from another folder, whose code it would run, is stale.
ifneq ($(shell test -x $(VENV_PYTHON) && cat .venv/.folder 2>/dev/null),$(CURDIR))
.PHONY: $(RUNTIME) $(DEV)
endif
ifneq ($(shell test -x $(LOCAL_PYTHON) && cat .venv-local/.folder 2>/dev/null),$(CURDIR))
.PHONY: $(LOCAL)
endif

demo: $(RUNTIME) ## Show the whole product on this machine: no key, no account, no upstream
	@$(VENV_PYTHON) tools/demo.py $(ARGS)

serve: $(RUNTIME) ## Start the server; ARGS="…" goes to calotype serve
	@.venv/bin/calotype serve $(ARGS)

# What ARGS picks runs in one process: several take longer to begin than most of what is picked.
test: $(DEV) ## Run the tests, several at a time; ARGS="-k name" picks some
	@$(VENV_PYTHON) -m pytest -q -ra $(or $(ARGS),-n auto --dist worksteal)

# Torch for a CPU is an environment of its own. For Linux the registry has no such build: elsewhere than in
# CI, tell pip where it lies (PIP_FIND_LINKS=FOLDER); without it this stops, and brings no CUDA packages.
test-local: $(LOCAL) ## Run the tests of local pictures, with torch for a CPU; ARGS="-k name" picks some
	@$(LOCAL_PYTHON) -m pytest -q -ra tests/local $(ARGS)

chaos: $(DEV) ## Kill servers, workers and PostgreSQL at random under load, then fail upstreams, for minutes
	@PYTHONPATH=tests $(VENV_PYTHON) -m acceptance.chaos.chaos $(ARGS)
	@PYTHONPATH=tests $(VENV_PYTHON) -m acceptance.chaos.failover
	@PYTHONPATH=tests $(VENV_PYTHON) -m acceptance.chaos.faults

soak: $(DEV) ## Let everything come and go for an hour on each database; ARGS="--minutes 8 --mode sqlite"
	@PYTHONPATH=tests $(VENV_PYTHON) -m acceptance.chaos.soak $(ARGS)

fuzz: $(DEV) ## Feed the intake of images with mutated files; ARGS="--inputs 100000 --seed N" says how many
	@PYTHONPATH=tests $(VENV_PYTHON) -m imaging.fuzz $(ARGS)

fuzz-api: $(DEV) ## Feed a server with odd requests, by its document and by bytes; ARGS="--seconds 600 --seed N"
	@PYTHONPATH=tests $(VENV_PYTHON) -m fuzzing $(ARGS)

check: $(DEV) ## Judge format, lint, types, layers and sizes; stops at the first that fails
	@$(call gate,format,$(VENV_PYTHON) -m ruff format --check)
	@$(call gate,lint,$(VENV_PYTHON) -m ruff check)
	@$(call gate,types,$(VENV_PYTHON) -m mypy)
	@$(call gate,layers,$(VENV_PYTHON) -c 'from importlinter.cli import lint_imports_command as run; run()' --no-logo)
	@for tool in tools/*_gate.py; do $(call gate,'"$$tool"',$(VENV_PYTHON) "$$tool"); done
	@printf '\nAll gates passed.\n'

audit: $(DEV) ## Look what is locked up among the known vulnerabilities; needs the network, and says so
	@$(VENV_PYTHON) tools/audit.py

sbom: $(DEV) ## List what is shipped as CycloneDX in dist/, from the lock, without the network
	@$(VENV_PYTHON) tools/sbom.py

bench: $(DEV) ## Measure throughput, latency and memory; ARGS="…" goes to the benchmark
	@PYTHONPATH=tests $(VENV_PYTHON) benchmarks/bench.py $(ARGS)

bench-peers: $(DEV) ## Measure other gateways beside Calotype; PEERS_HOME says where they are put
	@PYTHONPATH=tests $(VENV_PYTHON) benchmarks/peers.py $(ARGS)

# On a GPU call the script with a Python that has torch for it; PYTHONPATH is src:tests.
bench-local: $(LOCAL) ## Measure local pictures beside plain diffusers, on a CPU; ARGS="--random tiny --steps 4"
	@PYTHONPATH=tests $(LOCAL_PYTHON) benchmarks/local_pictures.py $(ARGS)

docs: $(DEV) ## Build the documentation site into build/site/, strictly
	@NO_MKDOCS_2_WARNING=1 $(VENV_PYTHON) -m mkdocs --quiet build $(ARGS)
	@echo 'Open build/site/index.html.'

dist: $(DEV) ## Build the wheel and the source distribution into dist/
	@rm -rf dist
	@$(VENV_PYTHON) -m hatchling build --target sdist --target wheel $(ARGS)

lock: $(VENV_PYTHON) ## Pin anew after a change in pyproject.toml; ARGS=--upgrade takes the newest of everything
	@set -e; tools=$$(mktemp -d); trap 'rm -rf "$$tools"' EXIT; trap 'exit 1' INT TERM; \
	$(VENV_PYTHON) -m venv "$$tools"; \
	"$$tools/bin/python" -m pip install $(PIP_QUIET) uv; \
	lock() { \
		UV_CUSTOM_COMPILE_COMMAND='make lock' "$$tools/bin/uv" pip compile --quiet --universal \
			--python-version 3.11 --generate-hashes pyproject.toml "$$@"; \
	}; \
	lock --group dev --extra c2pa --extra heic --extra tracing --output-file requirements/dev.lock $(ARGS); \
	cp requirements/dev.lock requirements/runtime.lock; \
	lock --group build --output-file requirements/runtime.lock; : keeps the versions it finds there; \
	lock --group local-tests --extra local --constraint requirements/dev.lock --no-emit-package torch \
		--output-file requirements/local.lock $(ARGS)

clean: ## Remove the environments, caches, builds and the demo's data; calotype-data/ stays
	@rm -rf .venv .venv-local .demo .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# What is needed for serving; the dev lock holds the same versions and more.
$(RUNTIME): $(VENV_PYTHON) requirements/runtime.lock pyproject.toml
	@$(call install,.venv,runtime,20 s)
	@touch $@

$(DEV): $(VENV_PYTHON) requirements/dev.lock pyproject.toml
	@$(call install,.venv,dev,40 s)
	@touch $(RUNTIME) $@

$(LOCAL): $(LOCAL_PYTHON) requirements/torch-cpu.lock requirements/local.lock pyproject.toml
	@$(call install,.venv-local,torch-cpu local,60 s)
	@touch $@

$(VENV_PYTHON):
	@$(call make_venv,.venv)

$(LOCAL_PYTHON):
	@$(call make_venv,.venv-local)
