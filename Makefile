# Needs Python >= 3.10 with venv, and make. Every target that runs Python makes the virtual environment first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-dsrl test lint format parity bench clean

help:  ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /\1\t/' | expand -t 12

setup: $(READY)  ## make the virtual environment .venv with all requirements

$(READY): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "error: $(PYTHON) is $$($(PYTHON) -V 2>&1), expected Python >= 3.10 (make PYTHON=python3.11 ...)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $(READY)

demo: $(READY)  ## the whole loop on this machine, from nothing: table and page of held-out tasks
	$(BIN)/python -u -m scripts.automated_iterative_diffusion_dits_iiwa --config config/pipeline/demo.yaml --cluster local

DSRL := results/demo_dsrl
LIFT := $(DSRL)/datasets/lift/scripted/low_dim_scripted.hdf5

demo-dsrl: $(READY)  ## Lift: record demonstrations, clone them, steer the clone by SAC; table, curve and video
	$(BIN)/python -m dsrl.collect_demos --tasks lift --num_demos 4 --datasets $(DSRL)/datasets
	$(BIN)/python -m dsrl.train_bc --task lift --config config/dsrl/demo_bc.yaml --data_path $(LIFT) --save_dir $(DSRL)/bc
	$(BIN)/python -m dsrl.evaluate --checkpoint $(DSRL)/bc/state_2000.pt --n_episodes 50 --horizon 100
	$(BIN)/python -m dsrl.train_dsrl --bc_checkpoint $(DSRL)/bc/state_2000.pt --config config/dsrl/demo_dsrl.yaml --save_dir $(DSRL)/dsrl
	$(BIN)/python -m dsrl.record_eval --checkpoint $(DSRL)/bc/state_2000.pt --sac $(DSRL)/dsrl/sac_best.zip --deterministic --videos $(DSRL)/videos

test: $(READY)  ## all tests
	$(BIN)/python -m pytest -n auto

lint: $(READY)  ## ruff, lint and format; mypy, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)  ## let ruff format and fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

parity: $(READY)  ## compare with recorded traces of the original simulator: make parity TRACES="a.npz b.npz"
	$(BIN)/python -m envs.parity $(TRACES)

bench: $(READY)  ## control steps per second beside bare physics
	$(BIN)/python -m benchmarks.env

clean:  ## remove the virtual environment and caches; data and results stay
	rm -rf $(VENV) .cache .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
