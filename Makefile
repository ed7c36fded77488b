# Two commands on a fresh machine (Python 3.11+, make): `make quickstart` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: quickstart test test-cluster test-gpu bench-gpu soak check clean

quickstart: $(VENV)/.quickstart  ## train on real data and evaluate: no download of data, no GPU
	$(BIN)/res2net train quickstart run.resume=auto
	$(BIN)/res2net test checkpoints/quickstart

test: $(VENV)/.dev check  ## style, types and all tests that need no cluster
	$(BIN)/pytest -m "not cluster and not gpu and not soak" --numprocesses 2 --dist worksteal

test-cluster: $(VENV)/.dev  ## the tests on a real SLURM cluster on this machine (Debian's slurm-wlm)
	$(BIN)/pytest -m "cluster and not soak"

test-gpu: $(VENV)/.dev  ## the tests that need a CUDA device
	$(BIN)/pytest -m gpu

bench-gpu: $(VENV)/.quickstart  ## the figures of BENCHMARKS.md of a GPU: no network, no data
	$(BIN)/res2net bench suite res2net50_26w_4s --device cuda --out bench-gpu.json

soak: $(VENV)/.dev  ## the long forms of tests; RES2NET_IMAGENET_SAMPLE: a folder of ImageNet's JPEG
	$(BIN)/pytest -m soak --numprocesses 2 --dist worksteal

check: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

clean:
	rm -rf $(VENV)

# One environment serves all; a stamp says which extras it holds and is made anew when the
# requirements change.
$(VENV)/.quickstart: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[quickstart]'
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[quickstart,dev]'
	touch $@ $(VENV)/.quickstart
