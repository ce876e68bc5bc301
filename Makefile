# The two commands of a new user: `make demo` and `make test`. Everything else is for developers.
# Each makes .venv from the lock first; uv is fetched into it, which is a good deal faster than pip.
#
#   make demo TORCH=cpu    the same without CUDA libraries (4 GB less): PyTorch's own CPU builds

PYTHON ?= python3
TORCH ?= default
BIN := .venv/bin
UV := $(BIN)/uv

.PHONY: demo test test-slow lint format types check lock bench keras-weights wheel clean

demo: .venv/run.stamp
	$(BIN)/regraft demo

# One thread per worker: threads of several processes on the same cores wait for each other. Memory is
# kept for the next tensor: where page faults are expensive, asking for it anew takes half of the time.
test: .venv/test.stamp
	OMP_NUM_THREADS=1 MALLOC_MMAP_THRESHOLD_=2000000000 MALLOC_TRIM_THRESHOLD_=1000000000 $(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: .venv/test.stamp
	$(BIN)/python -m pytest -m slow --timeout=3600

lint: .venv/test.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: .venv/test.stamp
	$(BIN)/mypy

format: .venv/test.stamp
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

check: lint types test

# The wheel as its users get it: in an environment of its own, and tried where no hub can be reached.
NOWHERE := HTTP_PROXY=http://127.0.0.1:9 HTTPS_PROXY=http://127.0.0.1:9 REGRAFT_HOME=build/wheel/home HF_HOME=build/wheel/hub
wheel: .venv/run.stamp
	rm -rf dist build/wheel .venv-wheel
	$(BIN)/python -m hatchling build --target wheel
	$(PYTHON) -m venv .venv-wheel
	$(call install,run,.venv-wheel)
	$(UV) pip install --quiet --python .venv-wheel/bin/python --no-deps --no-index dist/*.whl
	.venv-wheel/bin/python -c 'from regraft.data.synthetic import make_flowers; make_flowers("build/wheel/flowers")'
	env $(NOWHERE) .venv-wheel/bin/regraft fit build/wheel/flowers --out build/wheel/run
	@ls -l dist

# An hour or two on a machine that does nothing else; benchmarks/README.md has what came of it.
bench: .venv-bench/bench.stamp
	.venv-bench/bin/python benchmarks/memory.py
	.venv-bench/bin/python benchmarks/training.py

# Whether Regraft and Keras compute the same from Keras' files; writes docs/keras-weights.md.
keras-weights: .venv-bench/bench.stamp
	.venv-bench/bin/python benchmarks/keras_weights.py write build/keras-weights
	.venv-bench/bin/python benchmarks/keras_weights.py check build/keras-weights

.venv/uv.stamp: requirements/uv.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Regraft needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@touch $@

# $(call install,NAME,ENVIRONMENT): the packages of requirements/NAME.txt.
# With TORCH=cpu, uv takes torch and torchvision (at the locked versions) from PyTorch's CPU builds and
# leaves out the CUDA packages; everything else comes from the lock with its hashes all the same.
# Compiled once here, torch is not compiled again by every process on machines that keep no bytecode.
ifeq ($(TORCH),cpu)
install = $(UV) pip install --quiet --compile-bytecode --python $(2)/bin/python --torch-backend cpu \
	    $$(sed -n 's/^\(torch\(vision\)\{0,1\}==[^ ;]*\).*/\1/p' requirements/$(1).txt) && \
	  $(UV) pip install --quiet --compile-bytecode --python $(2)/bin/python --no-deps --require-hashes -r requirements/$(1)-cpu.txt
else
install = $(UV) pip install --quiet --compile-bytecode --python $(2)/bin/python --require-hashes -r requirements/$(1).txt
endif
editable = $(UV) pip install --quiet --python $(1)/bin/python --no-deps --no-build-isolation --editable .

.venv/%.stamp: .venv/uv.stamp requirements/%.txt pyproject.toml
	$(call install,$*,.venv)
	$(call editable,.venv)
	@touch $@

# The benchmarks have an environment of their own: TensorFlow, which Regraft is compared with, needs an older h5py.
.venv-bench/bench.stamp: .venv/uv.stamp requirements/bench.txt pyproject.toml
	$(PYTHON) -m venv .venv-bench
	$(call install,bench,.venv-bench)
	$(call editable,.venv-bench)
	@touch $@

# New versions of everything: names, versions and hashes, no address of any index.
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command "make lock" --no-header
CUDA := $(shell sed -n 's/^\(nvidia-[a-z0-9-]*\|cuda-[a-z-]*\|triton\)==.*/--no-emit-package \1/p' requirements/test.txt 2>/dev/null) \
	--no-emit-package torch --no-emit-package torchvision

lock: .venv/uv.stamp
	echo uv | $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-header --upgrade --output-file requirements/uv.txt -
	$(COMPILE) --upgrade --group build --output-file requirements/run.txt pyproject.toml
	$(COMPILE) --constraint requirements/run.txt --group build --group test --output-file requirements/test.txt pyproject.toml
	sed '/^h5py==/,/[^\\]$$/d' requirements/run.txt > .venv/constraints.txt
	$(COMPILE) --constraint .venv/constraints.txt --group build --output-file requirements/bench.txt pyproject.toml requirements/bench.in
	for name in run test bench; do \
	  $(COMPILE) $(CUDA) --constraint requirements/$$name.txt --group build $$(test $$name = test && echo --group test) \
	    --output-file requirements/$$name-cpu.txt pyproject.toml $$(test $$name = bench && echo requirements/bench.in); \
	done

clean:
	rm -rf .venv .venv-bench .venv-wheel .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
