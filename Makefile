# make setup   build .venv with the pinned packages (the other targets do that first)
# make demo    run a small study on the embedded lab: four arms, three seeds, report in runs/demo; studies: all questions of docs/results/studies.md
# make test    lint, types and tests; test-slow and test-gpu run the tests that it leaves out; test-vllm those of vLLM, in .venv-vllm
# make test-oldest   tests of models, losses, builders, training and evaluation with the oldest supported packages

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
OLDEST := .venv-oldest

export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: setup setup-vllm demo studies test test-slow test-gpu test-vllm lint clean test-oldest
.DELETE_ON_ERROR:

setup: $(READY)

# torch comes first: where a CPU build of the pinned version can be had, no other package's wish can bring CUDA along.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Sightline needs Python 3.11 or newer: make PYTHON=...")'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	# For tests alone, and on nobody's path: tests/models/families/torchvision_shim.py says why.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target .venv/test-only \
		torchvision==0.28.0 num2words==0.5.14 timm==1.0.31
	@touch $@

# Apart from .venv, since vLLM pins other versions of packages that Sightline needs.
setup-vllm: .venv-vllm/.ready

.venv-vllm/.ready: tests/vllm/setup.sh tests/vllm/constraints.txt
	PYTHON=$(PYTHON) tests/vllm/setup.sh .venv-vllm

demo: setup
	$(BIN)/sightline study studies/quick.yaml --out runs/demo --workers 2

# Every question of docs/results/studies.md, in some hours; interrupted and started again, it goes on.
studies: setup
	for study in settings objectives sources rl bdhs pairs; do \
		$(BIN)/sightline study studies/$$study.yaml --out runs/studies --workers 2 || exit 1; done

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# pytest comes last, so that its summary is the last thing printed. A file stays in one process: its fixtures are shared.
test: lint
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

test-slow: setup
	$(BIN)/python -m pytest -m 'slow and not gpu' -n auto --maxprocesses 4 --dist worksteal

test-gpu: setup
	$(BIN)/python -m pytest -m gpu

# In one process: the tests share a server.
test-vllm: setup setup-vllm
	$(BIN)/python -m pytest -m slow -n 0 tests/vllm

# Without the extras: tests that need one are skipped. Again torch comes first.
$(OLDEST)/.ready: pyproject.toml constraints-oldest.txt
	@$(OLDEST)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-oldest.txt torch
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-oldest.txt -e . \
		beartype gguf hypothesis pytest pytest-xdist tensorboard
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
		--target $(OLDEST)/test-only torchvision==0.23.0 num2words==0.5.14
	@touch $@

test-oldest: $(OLDEST)/.ready
	$(OLDEST)/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile \
		tests/models tests/losses tests/builders tests/train tests/evals tests/test_versions.py

clean:
	rm -rf .venv .venv-vllm .venv-oldest build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find sightline tests -name __pycache__ -type d -prune -exec rm -rf {} +
