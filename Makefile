# Everything that is done here by hand is a target: `make` lists them.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
BIN := .venv/bin
UV := $(BIN)/uv
EXAMPLE := .cache/example/wine-1.0.zip
LEFT_OUT := .cache/left-out

# What `make build-local` packages, and how.
MODEL ?=
PACKAGER ?= docker-rest
IMAGE_NAME ?= {{ Name }}:{{ Version }}
ENGINE ?= buildah
BASE ?= base
ARGS ?=
# Where `make demo` has the service listen; port 0 takes a free one.
LISTEN ?= 127.0.0.1:0
# Anything but empty: leave no suite out (.ci/run).
STRICT ?=
# What STRICT may do without: words as in the tests' `needs(...)`.
WITHOUT ?=
# How the integration tests are spread over processes, a file to one of them (they wait more than they work); empty: not at all.
PROCESSES ?= -n 4 --dist loadfile --no-loadscope-reorder
# Further arguments for pytest: make unit TESTS='-k plan'
TESTS ?=

##@ Package a model

.PHONY: build-local
build-local: install-build venv $(if $(MODEL),,$(EXAMPLE)) ## Package a model (the wine example, or MODEL=) into an image and say how to run it
	@MODEL='$(or $(MODEL),$(EXAMPLE))' PACKAGER='$(PACKAGER)' IMAGE_NAME='$(IMAGE_NAME)' ENGINE='$(ENGINE)' \
		BASE='$(BASE)' ARGS='$(ARGS)' local/build.sh

.PHONY: demo
demo: install-demo venv $(if $(MODEL),,$(EXAMPLE)) ## Registry, API service and the example packaged through it, on this machine; Ctrl-C ends it
	@MODEL='$(or $(MODEL),$(EXAMPLE))' LISTEN='$(LISTEN)' exec local/demo.sh

.PHONY: kaniko-local
kaniko-local: install-build install-registry venv $(if $(MODEL),,$(EXAMPLE)) ## The same with Kaniko, in the Job image as a pod would run it
	@MODEL='$(or $(MODEL),$(EXAMPLE))' PACKAGER='$(PACKAGER)' IMAGE_NAME='$(IMAGE_NAME)' BASE='$(BASE)' ARGS='$(ARGS)' \
		local/kaniko.sh

.PHONY: packager-image
packager-image: install-build venv ## Make the Job image (KANIKO_IMAGE= takes the executor from an image)
	@local/packager_image.sh

.PHONY: api-image
api-image: install-build venv ## Make the API service's image
	@local/api_image.sh

.PHONY: example
example: $(EXAMPLE) ## Train the wine example

.PHONY: base-image
base-image: install-build ## Make a base image from the distribution's packages (BASE=base or python)
	@local/base_image.sh $(BASE)

##@ Check

.PHONY: test
test: ## Install what is missing, then lint, unit and integration tests
	@mkdir -p .cache && rm -f $(LEFT_OUT)
	@local/install.sh build test || [[ -z '$(STRICT)' ]]
	@failed=0; $(MAKE) --keep-going lint unit integration || failed=$$?; \
		if [[ -s $(LEFT_OUT) ]]; then cat $(LEFT_OUT); fi; exit $$failed

.PHONY: check
check: install-build install-registry lint unit smoke ## Lint, types, unit tests, and one model end to end: a few minutes

.PHONY: smoke
smoke: venv ## Package one model with the oci engine, start the image and ask it
	@rm -f $(LEFT_OUT)
	LEFT_OUT_FILE=$(LEFT_OUT) $(BIN)/pytest -m smoke tests/integration

.PHONY: lint
lint: venv ## Ruff, mypy, the import contracts, the documentation's links, shellcheck
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@if command -v shellcheck >/dev/null; then \
		echo "shellcheck local/*.sh .ci/run"; shellcheck local/*.sh .ci/run; \
	else \
		mkdir -p .cache; echo "LEFT OUT: the shell scripts' lint: shellcheck is not installed" | tee -a $(LEFT_OUT); \
		[[ -z '$(STRICT)' ]]; \
	fi

.PHONY: unit
unit: venv ## Unit tests: no process, no socket
	$(BIN)/pytest -n auto $(TESTS) tests/unit

.PHONY: integration
integration: venv ## Integration tests: the real tools, a real registry
	@for program in conformance crane distribution helm kaniko-executor; do \
		local/go_program.sh $$program >/dev/null || true; done  # the tests that need one name it when it's not there
	STRICT='$(STRICT)' WITHOUT='$(WITHOUT)' LEFT_OUT_FILE=$(LEFT_OUT) $(BIN)/pytest $(PROCESSES) $(TESTS) tests/integration

.PHONY: bench
bench: install-build venv ## The benchmarks, each a program in bench/
	@for program in $(filter-out bench/measure.py,$(wildcard bench/*.py)); do echo "== $$program"; $(BIN)/python "$$program"; done

##@ Develop

.PHONY: format
format: venv ## Format the code and mend what ruff can mend
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

.PHONY: docs
docs: venv ## Build the documentation into build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "build/site/index.html"

.PHONY: reference
reference: venv ## Write the generated pages of docs/reference from the code
	$(BIN)/python local/reference.py

.PHONY: dist
dist: venv ## Build the wheel into dist/
	@rm -rf dist
	$(UV) build -q --wheel --python $(BIN)/python --out-dir dist .

.PHONY: manifests
manifests: venv ## Write what is generated of manifests/: of the chart, for Argo and Tekton, and the plain manifests
	$(BIN)/python local/manifests.py

.PHONY: labextension
labextension: ## Build JupyterLab's extension anew from labextension/ (needs npm and Node.js 20.19 or newer)
	cd labextension && npm ci --ignore-scripts --no-audit --no-fund && npm run format && npm run build

.PHONY: lock
lock: venv ## Resolve the pinned versions anew
	$(UV) pip compile -q --upgrade --universal --generate-hashes --no-header --no-annotate --python-version 3.10 --extra dev --extra api pyproject.toml \
		-o requirements.lock
	$(UV) pip compile -q --upgrade --universal --no-header --no-annotate --python-version 3.10 \
		examples/wine/requirements.in -o examples/wine/requirements.txt

.PHONY: venv
venv: .venv/.installed ## The Python environment, from requirements.lock

.PHONY: clean
clean: ## Remove what was made here: environments, caches, images in build/
	rm -rf .venv .cache build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

.PHONY: help
help: ## Show this help
	@echo "Usage: make TARGET [VARIABLE=value]..."
	@awk 'BEGIN {FS = ":.*## "} \
		/^##@ / {printf "\n%s\n", substr($$0, 5)} \
		/^[a-z-]+:.*## / {printf "  %-16s%s\n", $$1, $$2}' Makefile
	@printf '\n%s\n' 'Variables of build-local (default)'
	@printf '  %-16s%s\n' \
		MODEL= 'a GPPI zip or folder (the wine example)' \
		PACKAGER= 'docker-rest or docker-cli ($(PACKAGER))' \
		IMAGE_NAME= "the image's name, a template ($(IMAGE_NAME))" \
		ENGINE= 'what builds the image ($(ENGINE))' \
		BASE= 'the base image: base, python (for pip models) or any reference ($(BASE))' \
		ARGS= "further arguments of packager build, e.g. '-a port=8080 --output docker://localhost:5000/wine:1'"
	@printf '\n%s\n' 'STRICT=1 makes `make test` fail where it would leave a suite out for want of a program.'

.PHONY: install-build
install-build:
	@local/install.sh build

.PHONY: install-demo
install-demo:
	@local/install.sh build registry

.PHONY: install-registry
install-registry:
	@local/install.sh registry

.venv/.installed: requirements.lock pyproject.toml | .venv/bin/python
	@echo "Installing the pinned packages into .venv ..."
	@test -x $(UV) || $(BIN)/python -m pip install -q "$$(sed -n 's/^\(uv==[^ ]*\).*/\1/p' requirements.lock)"
	@$(UV) pip install -q --python $(BIN)/python -r requirements.lock -e '.[dev,api]'
	@touch $@

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or newer is needed, this is " + sys.version.split()[0] + ": make PYTHON=python3.x" if sys.version_info < (3, 10) else 0)'
	@$(PYTHON) -m venv .venv

# The distribution's own Python trains the example: the same that the small channel offers where no other answers.
$(EXAMPLE): examples/wine/train.py examples/wine/requirements.txt examples/wine/model/odahuflow_model/entrypoint.py | .venv/.installed
	@echo "Training the example ..."
	@test -x .cache/example-venv/bin/python || $(UV) venv -q --python /usr/bin/python3 .cache/example-venv
	@$(UV) pip install -q --python .cache/example-venv/bin/python -r examples/wine/requirements.txt
	@.cache/example-venv/bin/python examples/wine/train.py $@
