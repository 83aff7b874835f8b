# One command each: make test coverage check fix docs screenshots pythons oldest demo dev bench bench-short chaos clusters fuzz load scale upgrade recovery thorough clean

PYTHON ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11,\
	$(shell $(p) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(p))))
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: test coverage check fix docs screenshots pythons oldest demo dev bench bench-short chaos clusters fuzz load scale upgrade recovery thorough clean

# Everything, in two processes: one runs the live tests that measure time, one after the other, while the other runs the
# live tests that measure none, and then the rest.
PYTEST_ALL = -m pytest -n 2 --dist loadgroup tests
test: $(READY)
	$(BIN)/python $(PYTEST_ALL)

# The same with the branch coverage of durable/; fails below the floor.  Processes of timed live tests are not measured.
# make coverage ONLY="not timed"
coverage: $(READY)
	rm -rf .coverage-parts
	mkdir .coverage-parts
	$(BIN)/coverage run $(PYTEST_ALL) $(if $(ONLY),-m "$(ONLY)")
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python .ci/words.py

fix: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)
	$(BIN)/python docs/tools/make_architecture.py
	$(BIN)/python tests/conformance.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "The site is in site/.  To see it while you write: $(BIN)/mkdocs serve"

# The pictures of the dashboard in docs/images, taken in Debian's chromium.
screenshots: $(READY)
	$(BIN)/python docs/tools/make_screenshots.py

# The core's tests and the recorded logs on each of these that is installed: make pythons PYTHONS=3.13 QUICK=1
PYTHONS ?= 3.11 3.12 3.13 3.14
pythons:
	@QUICK=$(QUICK) bash .ci/pythons $(PYTHONS)

# The same with the oldest versions of all dependencies that pyproject.toml allows.
oldest:
	@PYTHON=$(PYTHON) bash .ci/oldest

# It needs less than the rest, and so installs within seconds.
demo: $(if $(wildcard $(READY)),$(READY),$(VENV)/.demo)
	@cd examples && ../$(BIN)/python -m demo

dev: $(READY)
	$(BIN)/durable --app worker.app dev

# make bench ONLY=W1,W6 ROUNDS=9 BROKER=rabbitmq DATABASE=sqlite CONTINUATION=0 FIRST_TURN=20ms; PEERS=1: other systems beside ours
BENCH = $(BIN)/python -m bench $(if $(ONLY),--only $(ONLY)) $(if $(ROUNDS),--rounds $(ROUNDS)) \
	$(if $(BROKER),--broker $(BROKER)) $(if $(DATABASE),--database $(DATABASE)) \
	$(if $(CONTINUATION),--continuation $(CONTINUATION)) $(if $(FIRST_TURN),--first-turn $(FIRST_TURN)) \
	$(if $(PEERS),--peers)

bench: $(READY)
	$(BENCH)

# Small sizes, for CI: fails on ratios that are far off, never on times.
bench-short: $(READY)
	$(BENCH) --short

# make chaos MINUTES=60 SEED=7 RATE=2 BROKER=rabbitmq KEEP=folder
chaos: $(READY)
	$(BIN)/python -m chaos --minutes $(or $(MINUTES),1) --rate $(or $(RATE),3) $(if $(SEED),--seed $(SEED)) $(if $(KEEP),--keep $(KEEP)) --broker $(or $(BROKER),redis)

# Set-ups of several servers, each hurt under load: make clusters ONLY="sentinel galera" RATE=5
clusters: $(READY)
	$(BIN)/python -m chaos.clusters $(ONLY) $(if $(RATE),--rate $(RATE))

# make fuzz SECS=600: each of the three for so long.
fuzz: $(READY)
	for each in request verifiers codec; do $(BIN)/python tests/fuzzing.py $$each -max_total_time=$(or $(SECS),60) || exit 1; done

# make load SECS=120 HELD=500 RATE=200
load: $(READY)
	@$(BIN)/python -m load $(if $(SECS),--secs $(SECS)) $(if $(HELD),--held $(HELD)) $(if $(RATE),--rate $(RATE))

# What a deployment costs database and broker as it grows: make scale RUNS=1000
scale: $(READY)
	$(BIN)/python -m bench.scale $(if $(RUNS),--runs $(RUNS))

# durable's own upgrade under load: make upgrade FROM=0022 DATABASE=mariadb BROKER=rabbitmq
upgrade: $(READY)
	$(BIN)/python -m chaos.upgrade $(FROM) $(if $(DATABASE),--database $(DATABASE)) $(if $(BROKER),--broker $(BROKER))

# All of what `make test` takes samples of: crashes everywhere, and each recorded database on each server.
thorough: $(READY)
	DURABLE_CRASHES=all TESTS_UPGRADES=all $(BIN)/python -m pytest -n 2 tests/flows/test_crash_everywhere.py tests/upgrades

recovery: $(READY)
	$(BIN)/python -m bench.recovery

clean:
	rm -rf $(VENV) .venv-pythons build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .cache .coverage-parts site

INSTALL = test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; name it: make PYTHON=/path/to/python3" >&2; exit 1; }; \
	$(PYTHON) .ci/install.py $(VENV)

$(READY): pyproject.toml
	@$(INSTALL) -e '.[postgres,mysql,verify,crypto,fsspec,prometheus,otel,asgi,dev]' --group dev
	@touch $@

$(VENV)/.demo: pyproject.toml
	@$(INSTALL) -e '.[dev]'
	@touch $@
