# make demo   set up, then train and compare a frontier on the model that ships
# make test   set up, then run every test that guards the code (minutes, 2 cores)
# make test-cluster   start a real SLURM of one node, where that is possible, and run the tests that need it, and Ray's
# make lint   formatter, linter, type checker
# make bench  time a step, whole sweeps beside other libraries, and how both grow (an afternoon on 2 cores)
# make evidence   the slow proofs: others read what we save, and we what they do; what docs/ say of the demo, architectures
#                 and objectives
# make .venv      the environment alone

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
PEERS := interop dictionary sparsify circuit saebench
INTEROP := .venv-interop/.installed
BROWSER := .venv-browser/.installed
# Two test processes with one thread each beat one with two on the small tensors of the tests.
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

BENCH := $(BIN)/python scripts/bench
BENCH_OUT := tests/evidence/bench

.PHONY: demo test test-cluster lint format evidence bench report .venv $(addprefix .venv-,$(PEERS)) .venv-browser clean

demo: $(STAMP)
	$(BIN)/sae-sweep +experiment=demo
	$(BIN)/sae-sweep report outputs/demo --latents 20

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

evidence: $(STAMP) $(patsubst %,.venv-%/.installed,$(PEERS)) $(BROWSER)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[tensorboard,workspaces,peft,bitsandbytes]'
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
	$(BIN)/python scripts/measured.py

# Made in parts: each architecture is written as it ends, and `make bench BENCH_ARGS="--only gated"` adds to the files.
bench: $(STAMP) $(INTEROP)
	$(BENCH)/step.py --install-peers --out $(BENCH_OUT)/step.json $(BENCH_ARGS)
	$(BENCH)/sweep.py --install-peers --out $(BENCH_OUT)/sweep.json $(BENCH_ARGS)
	$(BENCH)/scaling.py --out $(BENCH_OUT)/scaling.json $(BENCH_ARGS)
	$(BENCH)/ranks.py --out $(BENCH_OUT)/ranks.json
	$(BENCH)/memory.py --out $(BENCH_OUT)/memory.json

.venv: $(STAMP)

$(addprefix .venv-,$(PEERS)): .venv-%: .venv-%/.installed

.venv-browser: $(BROWSER)

# An environment whose interpreter is gone (a moved checkout, an upgraded Python) is made anew.
$(STAMP): pyproject.toml constraints.txt
	$(BIN)/python -m pip --version >/dev/null 2>&1 || { rm -rf .venv; $(PYTHON) -m venv .venv; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

# Other libraries do not live with ours (sae-lens needs transformer-lens below 4), nor with each other. torch comes first
# and pinned; a torchvision that is built for another one would be imported where it is, and fail.
PEER_interop := sae-lens==6.54.12
PEER_dictionary := dictionary-learning==0.1.0
PEER_sparsify := eai-sparsify==1.3.3
PEER_circuit := circuit-tracer==0.5.0
PEER_saebench := sae-bench==0.6.0
.venv-%/.installed:
	rm -rf .venv-$*
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 $(PEER_$*)
	.venv-$*/bin/python -m pip uninstall --quiet --yes torchvision
	touch $@

# The report is clicked through in a browser: the machine's own chromium, or the one that playwright brings.
$(BROWSER):
	rm -rf .venv-browser
	$(PYTHON) -m venv .venv-browser
	.venv-browser/bin/python -m pip install --quiet --disable-pip-version-check playwright==1.65.2
	command -v chromium || command -v chromium-browser || command -v google-chrome \
	    || .venv-browser/bin/python -m playwright install --with-deps chromium
	touch $@

clean:
	rm -rf .venv $(addprefix .venv-,$(PEERS)) .venv-browser build dist
