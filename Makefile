# make demo       the whole system on loopback: a good release goes out, a bad one halts; KEEP=1 leaves it running,
#                 SEED=n makes other devices the bad ones, SEEDS=n runs the seeds 0 to n-1
# make test       all tests; PYTEST_ARGS="-k gate -x" for some of them
# make check      what CI runs: format, lint, strict types, import contract, tests, coverage
# make static     the same without tests
# make fix        formats, and mends what the linter can
# make bench      the benchmarks, each beside its yardstick; BENCH_DEVICES=n and BENCH_ROUNDS=n set the size
# make kill-test  kills the daemon 2,000 times during rollouts; KILLS=n for another number
# make mutants    10 million mutants of every kind of message, none of which a device may take; MUTANTS=n
# make fuzz       5 million hostile inputs for every parser, none of which may crash or hang; FUZZ=n
# make campaigns  10,000 hostile days for the engine, each in virtual time, no promise of which may break; CAMPAIGNS=n
# make screenshots  every page, light, dark and on a phone, as pictures in a folder; SHOTS=folder
# make docs       every page and schema that is drawn from the code, after a change of commands, API, metrics or plans
# make man        of these, the manual page man/ota.1 alone
# make lock       new locks after a change of dependencies; needs uv
# make clean      removes the virtual environment and everything that was made
#
# Every target does its own set-up: the virtual environment (PYTHON=python3.12 chooses the interpreter), mosquitto and
# SoftHSM where root or sudo allows.

KILLS ?= 2000
MUTANTS ?= 10000000
FUZZ ?= 5000000
CAMPAIGNS ?= 10000
SHOTS ?= screenshots
UV ?= uv
PYTEST_ARGS ?=
export KEEP SEED SEEDS PYTHON

BIN := .venv/bin
READY := .venv/.installed
CODE := orchestrator tests benchmarks docs
LOCK := $(UV) pip compile pyproject.toml --universal --generate-hashes --no-header -q

.PHONY: demo test check static fix bench kill-test mutants fuzz campaigns screenshots docs man lock clean broker

demo: $(READY)
	@scripts/setup broker --optional
	@$(BIN)/python -m orchestrator.demo

test: $(READY) broker
	@scripts/setup token
	@scripts/setup clients
	@scripts/setup browser
	@scripts/setup promtool
	@$(BIN)/pytest -n 2 $(PYTEST_ARGS)

check: static
	@$(MAKE) --no-print-directory test PYTEST_ARGS="--cov --cov-report=term --cov-fail-under=90 --durations=25 $(PYTEST_ARGS)"
	@$(BIN)/coverage report --include='orchestrator/core/*,orchestrator/verifier/*,orchestrator/adapters/signers/*' --fail-under=100

static: $(READY)
	@$(BIN)/ruff format --check -q $(CODE)
	@$(BIN)/ruff check -q $(CODE)
	@$(BIN)/mypy $(CODE)
	@$(BIN)/lint-imports --no-cache

fix: $(READY)
	@$(BIN)/ruff format $(CODE)
	@$(BIN)/ruff check --fix $(CODE)

bench: $(READY) broker
	@$(BIN)/python -m benchmarks

kill-test: $(READY) broker
	@KILLS=$(KILLS) $(BIN)/pytest tests/e2e/test_kill.py --timeout=0

mutants: $(READY)
	@$(BIN)/python -m tests.fuzz.mutants $(MUTANTS)

fuzz: $(READY)
	@$(BIN)/python -m tests.fuzz.fuzz $(FUZZ)

campaigns: $(READY)
	@$(BIN)/python -m tests.campaigns.campaigns $(CAMPAIGNS)

screenshots: $(READY)
	@scripts/setup browser
	@$(BIN)/python -m tests.browser.screenshots $(SHOTS)

docs: man
	@for page in machines metrics cli api; do $(BIN)/python docs/draw_$$page.py || exit 1; done
	@$(BIN)/ota rollout schema > docs/examples/plan.schema.json
	@$(BIN)/ota webhook catalogue > docs/examples/events.schema.json

man: $(READY)
	@mkdir -p man
	@$(BIN)/python -m orchestrator.cli.manual > man/ota.1

lock:
	@command -v $(UV) >/dev/null || { echo "lock: uv is not installed; pip install uv, or name it: make lock UV=PATH"; exit 1; }
	@$(LOCK) -o requirements.lock
	@$(LOCK) --extra demo --group dev -o requirements-dev.lock
	@! grep -n '://' requirements.lock requirements-dev.lock || { echo "lock: a lock names a host"; exit 1; }

clean:
	@rm -rf .venv build dist .coverage .coverage.* htmlcov .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

broker:
	@scripts/setup broker

$(READY): requirements-dev.lock pyproject.toml scripts/setup
	@scripts/setup python
