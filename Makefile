# The verbs of this project. Each says what it does; `make` alone lists them.

VENV    := .venv
BIN     := $(VENV)/bin
STAMP   := $(VENV)/.installed
COMPILED := $(VENV)/.compiled
PXD     := $(shell find runtime actors -name '*.pxd')
TO_COMPILE := $(PXD) $(wildcard $(PXD:.pxd=.py)) $(shell find runtime actors -name '*.pyx')
LOCAL   ?=
ARGS    ?=

# The first interpreter that is new enough; `make PYTHON=/path/to/python3.12 ...` chooses another.
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& { echo "$$p"; break; }; done)

# Wheels only: no package is compiled, so no compiler and no headers are needed. Hashes are checked.
# Many retries and a long timeout: a slow network makes this slow, not broken.
PIP_INSTALL := $(BIN)/python -m pip --disable-pip-version-check install --quiet \
	--progress-bar off --retries 10 --timeout 120

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup compile demo test test-models check lint types contracts redis bench bench-models bench-gpu chaos soak lock clean

help:
	@echo "make demo     run the demonstration on a Ray cluster of its own (LOCAL=1: one process)"
	@echo "make test     set up, then lint, types, import contracts and all tests"
	@echo "make test-models  a real Whisper and a real Piper voice, downloaded from their hub"
	@echo "make check    lint, format, types and import contracts only"
	@echo "make chaos    kill and stop what serves calls, and see whether the callers notice (ARGS=--quick)"
	@echo "make bench    measure beside Pipecat and others (ARGS=--quick)"
	@echo "make bench-models  models that sessions share, in a table; fails if a bar is missed"
	@echo "make bench-gpu     Whisper on an NVIDIA GPU, in batches and one by one"
	@echo "make soak     100 sessions in a loop for four minutes: nothing may grow (ARGS=--help)"
	@echo "make redis    find or unpack the Redis server that the tests use (test does it first)"
	@echo "make setup    make $(VENV) with the locked packages (every other verb does it first)"
	@echo "make compile  compile again what has changed (setup does it, too)"
	@echo "make lock     choose package versions anew and write requirements.lock"
	@echo "make clean    remove $(VENV), caches and out/"

setup: $(STAMP) $(COMPILED)

$(STAMP): requirements.lock pyproject.toml
	@if [ -z "$(PYTHON)" ] || ! "$(PYTHON)" -c \
		'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
		echo "setup: Python 3.11 or newer is needed, and none was found." >&2; \
		echo "setup: install it (Debian: apt-get install python3 python3-venv)" \
			"or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; fi
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
		echo "setup: making $(VENV) with $$($(PYTHON) --version)"; \
		"$(PYTHON)" -m venv --clear $(VENV) || { \
			echo "setup: $(PYTHON) cannot make a virtual environment" \
				"(Debian: apt-get install python3-venv)" >&2; exit 1; }; }
	@echo "setup: installing the packages of requirements.lock (some minutes the first time)"
	@$(PIP_INSTALL) --require-hashes --only-binary :all: -r requirements.lock || { \
		echo "setup: a package could not be installed: see the lines above." \
			"Running the same command again goes on from here." >&2; exit 1; }
	@echo "setup: installing antiphon itself, in place"
	@ANTIPHON_COMPILE=0 $(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@$(BIN)/python -m compileall -q runtime actors
	@touch $@

compile: $(COMPILED)

# Without a C compiler everything works, only slower: that is said, and it is no error.
$(COMPILED): $(STAMP) hatch_build.py $(TO_COMPILE)
	@echo "setup: compiling what every frame passes through (about a minute)"
	@$(BIN)/python hatch_build.py || true
	@touch $@

demo: setup
	@echo "demo: a caller's recorded conversation with a bot$(if $(LOCAL),, on a Ray cluster)"
	$(BIN)/antiphon demo $(if $(LOCAL),--local) $(ARGS)

PURE_TESTS := tests/frames tests/processors tests/channels tests/session tests/pipeline

test: check redis
	@echo "test: running the tests"
	$(BIN)/python -m pytest $(ARGS)
	@echo "test: once more on the Python sources alone, where they have compiled twins"
	ANTIPHON_PURE=1 $(BIN)/python -m pytest -q $(PURE_TESTS)

# Without one, the tests that need it are skipped, except in continuous integration.
redis:
	@scripts/get_redis.sh || echo "test: without a Redis server, some tests will be skipped" >&2
# Which ones: ANTIPHON_TEST_WHISPER=base ANTIPHON_TEST_VOICE=en_US-lessac-medium make test-models
test-models: setup
	@echo "test-models: downloading what is not here (100 MB), and listening to it"
	ANTIPHON_TEST_MODELS=1 $(BIN)/python -m pytest -s tests/models/test_real_models.py $(ARGS)

check: lint types contracts

lint: setup
	@echo "check: lint and format (ruff)"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: setup
	@echo "check: types (mypy --strict)"
	@$(BIN)/mypy

contracts: setup
	@echo "check: which package may import which (import-linter)"
	@$(BIN)/lint-imports

chaos: setup
	@echo "chaos: calls go on while actors, supervisors and nodes die; about 45 minutes (ARGS=--quick: about seven)"
	@$(BIN)/python -m benchmarks.chaos --no-pipecat $(ARGS)

bench: setup
	@echo "bench: measuring; about 15 minutes (ARGS=--quick: about four)"
	@$(BIN)/python -m benchmarks $(ARGS)

bench-models: setup
	@echo "bench-models: measuring; about 15 minutes (ARGS=--quick: about five)"
	@$(BIN)/python -m benchmarks.models $(ARGS)

bench-gpu: setup
	@$(BIN)/python -m benchmarks.models.gpu $(ARGS)

soak: setup
	@echo "soak: opening, talking in and closing 100 sessions again and again; about four minutes"
	@$(BIN)/python -m benchmarks.soak $(ARGS)

# All but those whose packages depend on what the machine has.
LOCKED_EXTRAS := demo elevenlabs espeak koala langchain mcp noisereduce openai piper pocketsphinx \
	redis remote-smart-turn sentry silero soundfile websocket whisper

# Written for every platform and every Python from 3.11 on, with hashes, naming no index.
lock:
	@[ -x $(BIN)/python ] || "$(PYTHON)" -m venv $(VENV)
	@echo "lock: choosing versions and writing requirements.lock"
	@$(PIP_INSTALL) uv
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --upgrade \
		--generate-hashes --no-emit-index-url --no-header --no-annotate \
		$(addprefix --extra ,$(LOCKED_EXTRAS)) --group dev --output-file requirements.lock pyproject.toml
	@echo "lock: done; 'make setup' installs it"

clean:
	@echo "clean: removing $(VENV), caches and out/"
	@rm -rf $(VENV) out .bench .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	@find runtime actors -name '*.so' -delete
	@find runtime actors tests -name __pycache__ -type d -prune -exec rm -rf {} +
