# Everything a newcomer needs: `make demo` and `make test`. Both set up what they use.
PYTHON ?= python3
BROKER ?=
VENV := .venv
BIN := $(VENV)/bin
PEERS := .venv-peers
# Exactly the versions that are locked, and nothing whose hash is another.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
LOCKED := $(INSTALL) --require-hashes -r
ITSELF := $(INSTALL) --no-deps --no-build-isolation --editable .
PYTEST_ARGS ?=
# Most tests wait more than they compute, so there are three at a time also on two cores. One by one, so that all workers
# end together; PYTEST_ARGS="-n 0": without.
AT_ONCE := -n 3 --dist load --maxschedchunk 1

.PHONY: demo test lint unit bench bench-peers bench-curves chaos chaos-failpoints simulate fuzz lock sbom release clean

demo: $(VENV)/.installed ## The main job with two users; BROKER=amqp://... does it over RabbitMQ
	$(BIN)/coflows $(if $(BROKER),--broker $(BROKER)) demo

test: $(VENV)/.developing lint ## Linters, type checks, all tests; starts RabbitMQ and PostgreSQL, installs them when missing
	$(BIN)/python -m pytest $(AT_ONCE) $(PYTEST_ARGS)

lint: $(VENV)/.developing
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python requirements/audit.py

unit: $(VENV)/.developing ## The quick part of the tests
	$(BIN)/python -m pytest tests/unit tests/architecture $(PYTEST_ARGS)

chaos: $(VENV)/.developing ## The whole load under random faults; SECONDS=300 SEED=7
	$(BIN)/python -m tests.chaos --seconds $(or $(SECONDS),120) --seed $(or $(SEED),1)

chaos-failpoints: $(VENV)/.developing ## Workers killed 200 times at each point of a message's life, a peer away for a minute
	DEATHS=$(or $(DEATHS),200) AWAY=$(or $(AWAY),60) $(BIN)/python -m pytest -q --timeout 1800 tests/chaos/test_worker_faults.py tests/chaos/test_client_faults.py tests/chaos/test_tree_faults.py tests/chaos/test_key_faults.py

simulate: $(VENV)/.developing ## 10,000 seeds of the simulation; SEED=n runs one again
	SEEDS=$(or $(SEEDS),10000) $(BIN)/python -m pytest -q --timeout 3600 tests/unit/test_simulation.py

fuzz: $(VENV)/.developing ## What reads bytes, names and configs of others; CASES=100000 of each property, SECONDS=600 by coverage
	CASES=$(or $(CASES),20000) $(BIN)/python -m pytest -q --timeout 3600 tests/security -m fuzz
	mkdir -p .fuzz && $(BIN)/python -m tests.security.fuzz_decoder .fuzz -artifact_prefix=.fuzz/ -max_len=4096 -max_total_time=$(or $(SECONDS),120)

bench: $(VENV)/.developing ## The benchmarks, as tables; SECTIONS="calls idle" for some of them
	$(BIN)/python -m benchmarks $(SECTIONS)

bench-peers: $(VENV)/.developing $(PEERS)/.installed ## Celery, Dramatiq, Nameko and Ray beside CoFlows
	$(BIN)/python -m benchmarks calls peers

bench-curves: $(VENV)/.developing $(PEERS)/.installed ## The plot of latency over throughput, into docs/
	$(BIN)/python -m benchmarks curves

lock: | $(VENV)/bin/python ## Lock the newest versions that pyproject.toml allows, with the hashes of all their files
	$(PYTHON) -m venv .venv-lock && .venv-lock/bin/python -m pip install --quiet uv
	$(RESOLVE) --upgrade --extra dev --extra postgres -o requirements/dev.lock
	$(RESOLVE) --upgrade -c requirements/dev.lock -o requirements/runtime.lock

RESOLVE := .venv-lock/bin/uv pip compile --quiet pyproject.toml requirements/build.in --universal --python-version 3.11 \
	--generate-hashes --no-header --no-annotate

sbom: $(VENV)/.developing ## What a release is made of, as CycloneDX, into dist/
	@mkdir -p dist
	$(BIN)/cyclonedx-py requirements requirements/runtime.lock --pyproject pyproject.toml --output-reproducible \
		--output-format JSON --output-file dist/coflows.cdx.json

release: sbom ## Wheel and source distribution with their SBOM, into dist/
	$(BIN)/python -m build --no-isolation

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "CoFlows needs Python 3.11 or newer; set PYTHON=..."; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { test "$$(id -u)" = 0 && apt-get update -qq && apt-get install -y -qq python3-venv && $(PYTHON) -m venv --clear $(VENV); } || { echo "Install python3-venv, then try again."; exit 1; }

$(VENV)/.installed: pyproject.toml requirements/runtime.lock | $(VENV)/bin/python
	$(LOCKED) requirements/runtime.lock
	$(ITSELF)
	@touch $@

$(VENV)/.developing: pyproject.toml requirements/dev.lock | $(VENV)/bin/python
	$(LOCKED) requirements/dev.lock
	$(ITSELF)
	@touch $@ $(VENV)/.installed

# One by one: a peer that does not install here is left out, and the benchmark says so.
$(PEERS)/.installed: benchmarks/peers/requirements.txt | $(VENV)/bin/python
	@$(PYTHON) -m venv $(PEERS)
	@while read -r peer; do $(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check "$$peer" || echo "$$peer does not install here."; done < $<
	@touch $@

clean:
	rm -rf $(VENV) $(PEERS) .venv-lock build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .fuzz
