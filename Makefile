# make setup   build .venv with the pinned packages (the other targets do that first)
# make demo    run a small study on the embedded lab: four arms, three seeds, report in runs/demo; studies: all questions of docs/results/studies.md
# make test    lint, types and tests; test-slow and test-gpu run the tests that it leaves out; test-vllm those of vLLM, in .venv-vllm

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: setup setup-vllm demo studies test test-slow test-gpu test-vllm lint clean
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

clean:
	rm -rf .venv .venv-vllm build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find sightline tests -name __pycache__ -type d -prune -exec rm -rf {} +
