PYTHON ?= python3
# One backend for a shorter run: make test BACKEND=jax.
BACKEND ?=
BACKENDS := $(or $(strip $(BACKEND)),torch tensorflow jax)
FIRST := $(firstword $(BACKENDS))
# The oldest Keras that is supported.
OLDEST := 3.14.0
# How many tests run at once.
JOBS ?= 2
PYTEST_ARGS ?=
# Of make experiments: which (all without a name), the share of epochs and seeds, processes.
EXPERIMENTS ?=
BUDGET ?= 1
WORKERS ?= 2

# Of make fuzz: how many inputs (all without a number), of which seed and kinds.
COUNT ?=
SEED ?= 0
KINDS ?=

SHELL := /bin/bash
ROOT := $(patsubst %/,%,$(dir $(abspath $(lastword $(MAKEFILE_LIST)))))
DEMO := .venv
TEST := .venv-test
DOCS := .venv-docs

# Data prepared beside the checkout is used unless another place is named.
ifeq ($(strip $(TFDS_DATA_DIR)),)
ifneq ($(wildcard $(ROOT)/../shared/tfds),)
export TFDS_DATA_DIR := $(abspath $(ROOT)/../shared/tfds)
endif
endif

# Every process starts a thread per core; side by side they would fight over the cores.
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 NPROC=1 \
	TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1
# Compiling takes most of the time on JAX, which tests on other backends start too: what LLVM
# would optimise is left as it is, and the emitters of loops that are simpler take a third of the
# time.
QUICK_TO_COMPILE := XLA_FLAGS="$$XLA_FLAGS --xla_backend_optimization_level=0 \
	--xla_cpu_parallel_codegen_split_count=1 --xla_cpu_use_fusion_emitters=false"
PYTEST := $(if $(filter-out 1,$(JOBS)),$(ONE_THREAD)) $(TEST)/bin/python -m pytest --durations=20 --durations-min=5 \
	$(if $(filter-out 1,$(JOBS)),--numprocesses=$(JOBS) --dist=worksteal)

.PHONY: help demo install test ray oldest lint typecheck grid zoo fuzz bench gpu layers compare notebooks docs docs-check experiments report test-experiments release-check clean $(BACKENDS:%=pytest-%) $(BACKENDS:%=oldest-%)

help:
	@echo "make demo       install with JAX into $(DEMO) and run the demonstration"
	@echo "make test       install into $(TEST), lint, check types, test on every backend"
	@echo "                BACKEND=jax|tensorflow|torch tests on one, JOBS=1 one test at a time"
	@echo "make oldest     radius, transitions and layers on the oldest Keras that is supported, which"
	@echo "                make test does on its first backend"
	@echo "make ray        jobs on a Ray cluster of two machines, some of them killed, on JAX"
	@echo "make lint       ruff, and the generated tables;  make typecheck  mypy alone"
	@echo "make grid       stabilise every cell, depth, target and mode on JAX"
	@echo "make zoo        measure the certificate of every checkpoint again on every backend"
	@echo "make fuzz       ten thousand damaged inputs, of every kind on JAX; COUNT=500 SEED=1 KINDS=ts,npy"
	@echo "make bench      the benchmarks on every backend"
	@echo "make gpu        what is measured on a GPU, on JAX and torch; DEVICE=cpu tries it without one"
	@echo "make layers     spiking and state-space layers beside other libraries"
	@echo "make compare    three checkpoints of the zoo on every backend, side by side"
	@echo "make experiments  what is missing of the experiments, then their report"
	@echo "                EXPERIMENTS=\"recurrent targets\" BUDGET=0.5 WORKERS=2"
	@echo "make report     the report of the experiments from the stored runs"
	@echo "make notebooks  run the notebooks on JAX and store what they show"
	@echo "make release-check  whether the commit could be released: two equal builds, and the wheel"
	@echo "                offline in an empty environment with JAX; TRY=\"--backend torch --keras 3.14.0\""
	@echo "make docs       build the handbook into build/site;  make docs-check  try it in Chromium"
	@echo "make clean      remove the environments and what was built"

$(DEMO)/installed: pyproject.toml
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/python -m pip install --quiet --editable ".[jax,demo]"
	@touch $@

# Most of what is installed is never imported: compiling it all takes half of the time.
$(TEST)/installed: pyproject.toml tests/requirements.txt
	$(PYTHON) -m venv $(TEST)
	$(TEST)/bin/python -m pip install --quiet --no-compile --requirement tests/requirements.txt \
		--editable ".[dev,demo]"
	@touch $@

install: $(TEST)/installed

demo: $(DEMO)/installed
	KERAS_BACKEND=jax $(DEMO)/bin/keras-lsc demo

# The generated tables say what the JSON of the benchmarks says.
lint: $(TEST)/installed
	$(TEST)/bin/ruff check .
	$(TEST)/bin/ruff format --check .
	$(TEST)/bin/python benchmarks/tables.py --check

typecheck: $(TEST)/installed
	$(TEST)/bin/mypy

# --keep-going: one failing backend does not hide the result of the next, and still fails the run.
test: lint typecheck
	@$(MAKE) --no-print-directory --keep-going $(BACKENDS:%=pytest-%) oldest-$(FIRST) \
		test-experiments

# Radius, transitions and layers on the oldest Keras that is supported.
oldest:
	@$(MAKE) --no-print-directory --keep-going $(BACKENDS:%=oldest-%)

$(TEST)/keras-$(OLDEST): $(TEST)/installed
	$(TEST)/bin/python -m pip install --quiet --no-deps --target $@ keras==$(OLDEST)

# What else Ray needs is among what the tests do.
$(TEST)/ray: $(TEST)/installed
	$(TEST)/bin/python -m pip install --quiet --no-deps --target $@ "ray==2.60.*"

# Apart from the others: Ray is 80 MB, and every process of a cluster imports a backend.
ray: $(TEST)/ray
	KERAS_BACKEND=jax PYTHONPATH=$(TEST)/ray $(ONE_THREAD) $(TEST)/bin/python -m pytest \
		tests/test_ray.py --ray $(PYTEST_ARGS)

$(BACKENDS:%=oldest-%): oldest-%: $(TEST)/keras-$(OLDEST)
	@echo "==== tests on $* with Keras $(OLDEST) ===="
	@KERAS_BACKEND=$* PYTHONPATH=$(TEST)/keras-$(OLDEST) $(PYTEST) \
		tests/test_radius.py tests/test_transitions.py tests/test_layers.py -m "not once" $(PYTEST_ARGS)

$(BACKENDS:%=pytest-%): pytest-%: $(TEST)/installed
	@echo "==== tests on $* ===="
	@KERAS_BACKEND=$* KERAS_LSC_TESTED="$(BACKENDS)" $(QUICK_TO_COMPILE) \
		$(PYTEST) $(PYTEST_ARGS)

# No part of the product, and on one backend: see experiments/README.md.
test-experiments: $(TEST)/installed
	@echo "==== tests of the experiments on $(FIRST) ===="
	@KERAS_BACKEND=$(FIRST) $(PYTEST) experiments/tests $(PYTEST_ARGS)

# Every cell, depth, target and mode on JAX, and the energy law to depth 16; the tests take a slice.
grid: $(TEST)/installed
	KERAS_BACKEND=jax $(TEST)/bin/python benchmarks/grid.py
	KERAS_LSC_DEEP=1 KERAS_BACKEND=jax $(TEST)/bin/python -m pytest tests/test_stabilize.py -k energies
	$(TEST)/bin/python benchmarks/tables.py

# Every checkpoint: the same outputs on every backend, the scores of its trained weights, and its
# certificates measured again on each; what was found is in build/zoo-BACKEND.json.
zoo: $(TEST)/installed
	@mkdir -p build
	@set -e; for backend in $(BACKENDS); do \
		echo "==== checkpoints on $$backend ===="; \
		KERAS_LSC_DEEP=1 KERAS_BACKEND=$$backend $(TEST)/bin/python -m pytest tests/test_zoo.py \
			-k "outputs or runs" $(PYTEST_ARGS); \
		KERAS_LSC_DEEP=1 KERAS_BACKEND=$$backend $(TEST)/bin/python -m pytest \
			tests/test_zoo_trained.py -k "score_is or weights_holds" $(PYTEST_ARGS); \
		$(TEST)/bin/python -m keras_lsc_command verify --all --jobs $(JOBS) \
			--backend $$backend --output build/zoo-$$backend.json; \
	done

# Every backend is tried, though one of them failed; the tables then say what came of each.
fuzz: $(TEST)/installed
	@failed=; for backend in $(BACKENDS); do \
		echo "==== damaged inputs on $$backend ===="; \
		KERAS_BACKEND=$$backend $(ONE_THREAD) $(TEST)/bin/python -m fuzz --seed $(SEED) \
			$(if $(COUNT),--count $(COUNT)) $(if $(KINDS),--kinds $(KINDS)) || failed="$$failed $$backend"; \
	done; \
	$(TEST)/bin/python benchmarks/tables.py; \
	if [ -n "$$failed" ]; then echo "failed on$$failed"; exit 1; fi

bench: $(TEST)/installed
	@set -e; for backend in $(BACKENDS); do \
		echo "==== benchmarks on $$backend ===="; \
		KERAS_BACKEND=$$backend $(TEST)/bin/python benchmarks/pretraining.py; \
		KERAS_BACKEND=$$backend $(TEST)/bin/python benchmarks/parallel.py; \
		KERAS_BACKEND=$$backend $(TEST)/bin/python benchmarks/datasets.py; \
		KERAS_BACKEND=$$backend $(TEST)/bin/python -m benchmarks.radius; \
		KERAS_BACKEND=$$backend $(TEST)/bin/python -m benchmarks.levelling; \
		KERAS_BACKEND=$$backend $(TEST)/bin/python -m benchmarks.monitor; \
	done
	KERAS_BACKEND=jax $(TEST)/bin/python benchmarks/parallel.py --curve
	KERAS_BACKEND=jax $(TEST)/bin/python benchmarks/parallel.py --training
	KERAS_BACKEND=jax $(TEST)/bin/python benchmarks/accuracy.py
	$(TEST)/bin/python benchmarks/tables.py

# With the Python of the machine, whose JAX and torch fit its GPU.
DEVICE ?= gpu
gpu:
	benchmarks/gpu/run.sh --device $(DEVICE)

# Beside other libraries, none of which the package or its tests need.
layers: $(TEST)/installed
	$(TEST)/bin/pip install --quiet -r benchmarks/requirements.txt
	@set -e; for backend in $(BACKENDS); do \
		echo "==== layers on $$backend ===="; \
		KERAS_BACKEND=$$backend $(TEST)/bin/python benchmarks/layers.py; \
	done
	$(TEST)/bin/python benchmarks/tables.py

COMPARED := lstm_smnist_d2_rhovar alif_smnist_latency_d2_rhovar lru_smnist_d3_rhovar

# Written beside first: a comparison that breaks off leaves the former result.
compare: $(TEST)/installed
	@set -e; for name in $(COMPARED); do \
		echo "==== $$name on every backend ===="; \
		file=benchmarks/results/compare_$$name.json; \
		$(TEST)/bin/keras-lsc compare-backends $$name --json > $$file.new || { rm $$file.new; exit 1; }; \
		mv $$file.new $$file; \
	done
	$(TEST)/bin/python benchmarks/tables.py

# What is finished is skipped: interrupt it, and start it again another day.
experiments: $(TEST)/installed
	KERAS_BACKEND=jax $(TEST)/bin/python -m experiments.run \
		$(EXPERIMENTS) --budget $(BUDGET) --jobs $(WORKERS)
	@$(MAKE) --no-print-directory report

report: $(TEST)/installed
	KERAS_BACKEND=jax $(TEST)/bin/python -m experiments.report

notebooks: $(TEST)/installed
	KERAS_BACKEND=jax $(TEST)/bin/python colab/execute.py

# The site needs neither Keras nor a backend: the reference is read from the source.
$(DOCS)/installed: pyproject.toml
	$(PYTHON) -m venv $(DOCS)
	sed -n '/^docs = \[/,/^\]/s/^ *"\(.*\)",$$/\1/p' pyproject.toml | \
		$(DOCS)/bin/python -m pip install --quiet --requirement /dev/stdin
	@touch $@

docs: $(DOCS)/installed
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict --clean

# Needs Chromium, which CHROMIUM names where it is not on the path.
docs-check: docs
	$(DOCS)/bin/python -m pip install --quiet "playwright>=1.40"
	$(DOCS)/bin/python docs/check_site.py

# Builds the commit, not the files beside it. Needs the package index; the trial itself is offline.
release-check:
	$(PYTHON) release/check.py $(TRY)

clean:
	rm -rf $(DEMO) $(TEST) $(DOCS) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
