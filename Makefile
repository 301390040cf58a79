# `make demo` and `make test` are all a newcomer needs; everything lands in $(VENV).
VENV ?= .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := $(VENV)/bin
WHEELHOUSE ?= wheelhouse
EXTRAS ?= site,quantum
SBOM ?= decoct-sbom.json
SBOM_OF ?= $(BIN)/python
STAMP := $(VENV)/.installed
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false

.PHONY: help install demo quick test kernels docs lint format types benchmarks wheelhouse sbom clean

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(STAMP): pyproject.toml constraints-py311.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints-py311.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints-py311.txt --editable '.[dev]'
	@touch $@

install: $(STAMP)  ## make the virtual environment with the tested set of versions

demo: $(STAMP)  ## the main job on real, embedded data
	$(BIN)/decoct demo

quick: $(STAMP)  ## the quick tests: about a minute on two idle cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -q -m 'not slow and not heavy' tests/unit tests/docs

test: $(STAMP)  ## all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder  # the long files come first

kernels: $(STAMP)  ## contracts and encoders under OpenBLAS's AVX2 kernels, which many newcomers' machines have
	OPENBLAS_CORETYPE=Haswell OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -q tests/contract/test_encoder_contract.py \
		tests/contract/test_transformers_sklearn.py tests/contract/test_condenser_contract.py \
		tests/contract/test_attack_contract.py tests/unit/test_encoders_*.py

docs: $(STAMP)  ## the documentation as a site in build/docs; strict, without a network
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

lint: $(STAMP)  ## style, import rules and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/mypy --implicit-reexport --explicit-package-bases tests

format: $(STAMP)  ## rewrite in the house's style
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

# async-timeout: redis asks for it on a Python before 3.11.3, such as Debian 12's
wheelhouse:  ## all wheels for a machine without a network, with their digests (docs/how-to/offline-install.md)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip wheel --quiet --constraint constraints-py311.txt --wheel-dir $(WHEELHOUSE) \
		'.$(if $(EXTRAS),[$(EXTRAS)])' async-timeout
	cp constraints-py311.txt $(WHEELHOUSE)/
	cd $(WHEELHOUSE) && sha256sum -- *.whl constraints-py311.txt > SHA256SUMS

sbom: $(STAMP)  ## what is installed, as a CycloneDX bill of materials
	$(BIN)/cyclonedx-py environment --no-validate --pyproject pyproject.toml --mc-type application --output-reproducible \
		--output-file $(SBOM) $(SBOM_OF)

clean:  ## remove the environments and the demo (never a workspace: it holds keys)
	rm -rf $(VENV) .venv-ci decoct-demo
