# make demo   set up, then train and compare a frontier on the model that ships
# make test   set up, then run every test that guards the code (minutes, 2 cores)
# make test-cluster   start a real SLURM of one node, where that is possible, and run the tests that need it, and Ray's
# make lint   formatter, linter, type checker
# make bench  time a step, whole sweeps beside other libraries, and how both grow (an afternoon on 2 cores)
# make evidence   the slow proofs: SAELens reads what we save; what docs/ say of the demo, architectures and objectives
# make .venv      the environment alone

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
INTEROP := .venv-interop/.installed
# Two test processes with one thread each beat one with two on the small tensors of the tests.
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

BENCH := $(BIN)/python scripts/bench
BENCH_OUT := tests/evidence/bench

.PHONY: demo test test-cluster lint format evidence bench report .venv .venv-interop clean

demo: $(STAMP)
	$(BIN)/sae-sweep +experiment=demo

test: $(STAMP)
	$(TEST) -m "not evidence and not slurm"

# The script installs Debian's packages where they are missing, and says so where no SLURM can be started.
CLUSTER := /tmp/sae-sweep-slurm
test-cluster: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[ray]'
	rm -rf $(CLUSTER)
	scripts/one_node_slurm.sh start $(CLUSTER)
	SLURM_CONF=$(CLUSTER)/slurm.conf OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slurm; \
	    code=$$?; scripts/one_node_slurm.sh stop $(CLUSTER); exit $$code

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

evidence: $(STAMP) $(INTEROP)
	$(BIN)/python -m pytest -m evidence
	$(BIN)/sae-sweep +experiment=demo tracking=none
	$(BIN)/sae-sweep +experiment=demo tracking=none name=long training.tokens=3e6
	$(BIN)/python scripts/check_demo.py outputs/demo --longer outputs/long --out tests/evidence/demo.json
	$(BIN)/sae-sweep +experiment=architectures tracking=none
	$(BIN)/sae-sweep +experiment=tokenized tracking=none
	$(BIN)/sae-sweep +experiment=toy tracking=none
	$(BIN)/python scripts/check_architectures.py outputs --out tests/evidence/architectures.json
	$(BIN)/sae-sweep +experiment=e2e tracking=none
	$(BIN)/sae-sweep +experiment=e2e tracking=none name=e2e_seed1 seed=1
	$(BIN)/sae-sweep +experiment=e2e_finetune tracking=none
	$(BIN)/sae-sweep +experiment=transcoders tracking=none
	$(BIN)/python scripts/check_objectives.py outputs --out tests/evidence/objectives.json

# Made in parts: each architecture is written as it ends, and `make bench BENCH_ARGS="--only gated"` adds to the files.
bench: $(STAMP) $(INTEROP)
	$(BENCH)/step.py --install-peers --out $(BENCH_OUT)/step.json $(BENCH_ARGS)
	$(BENCH)/sweep.py --install-peers --out $(BENCH_OUT)/sweep.json $(BENCH_ARGS)
	$(BENCH)/scaling.py --out $(BENCH_OUT)/scaling.json $(BENCH_ARGS)
	$(BENCH)/ranks.py --out $(BENCH_OUT)/ranks.json
	$(BENCH)/memory.py --out $(BENCH_OUT)/memory.json

.venv: $(STAMP)

.venv-interop: $(INTEROP)

# An environment whose interpreter is gone (a moved checkout, an upgraded Python) is made anew.
$(STAMP): pyproject.toml constraints.txt
	$(BIN)/python -m pip --version >/dev/null 2>&1 || { rm -rf .venv; $(PYTHON) -m venv .venv; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

# sae-lens needs transformer-lens below 4, so it cannot live in the main environment. torch comes first and pinned.
$(INTEROP):
	rm -rf .venv-interop
	$(PYTHON) -m venv .venv-interop
	.venv-interop/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	.venv-interop/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 sae-lens==6.54.12
	touch $@

clean:
	rm -rf .venv .venv-interop .venv-dictionary .venv-sparsify build dist
