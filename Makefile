# Every target works in a fresh checkout; what it needs goes to .venv.
BIN := .venv/bin
DEMO := build/demo/highload-service
FIND_PYTHON := for python in python3.13 python3.14 "$$(pyenv prefix 3.13 2>/dev/null)/bin/python" python3 python; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 13))' 2>/dev/null && echo "$$python" && exit; done
PYTHON ?= $(shell $(FIND_PYTHON))

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: .venv/done ## Render the default answers and serve them on http://127.0.0.1:8000
	test -d $(DEMO) || $(BIN)/cookiecutter . --no-input --output-dir $(dir $(DEMO))
	$(MAKE) --directory $(DEMO) run PYTHON=$(abspath $(BIN)/python) UV=$(abspath $(BIN)/uv)

REPORT := --junitxml=build/tests

.PHONY: test
test: .venv/done ## Render, check and boot every variant, with Python alone; it says what it leaves out
	$(BIN)/python -m pytest --numprocesses 3 -m "not slow" $(REPORT)/fast.xml

.PHONY: test-all
test-all: test ## Then every slow test: recipes, mutations, stacks in Docker; and, alone, what loads and breaks servers
	$(BIN)/python -m pytest --numprocesses 3 -m slow --ignore tests/test_drills.py $(REPORT)/slow.xml
	$(BIN)/python -m pytest tests/test_drills.py $(REPORT)/drills.xml

.PHONY: variants
variants: .venv/done ## Write docs/variants.md from the reports of `make test-all`
	$(BIN)/python -m tests.checks

.PHONY: recording
recording: .venv/done ## Type the first steps of a user into a terminal, and write docs/first-steps.md (ONLY=questions: measure nothing)
	$(BIN)/python -m tools.recording $(ONLY)

# The jobs of the workflows. Together they run what `make test-all` runs; ANSWERS in the environment names one variant.
TESTS_OF_VARIANTS := $(patsubst %,tests/test_%.py,floors lint names recipes variants)
TESTS_OF_STACKS := tests/test_stack.py tests/test_drills.py

.PHONY: test-variants
test-variants: .venv/done ## Render, check and boot every variant, and test few, or the one of ANSWERS
	$(BIN)/python -m pytest --numprocesses 2 $(TESTS_OF_VARIANTS)

.PHONY: test-template
test-template: .venv/done ## Test what is the same in every variant
	$(BIN)/python -m pytest --numprocesses 2 $(patsubst %,--ignore=%,$(TESTS_OF_VARIANTS) $(TESTS_OF_STACKS))

.PHONY: test-stacks
test-stacks: .venv/done ## Drive the containers of the variants, or of that of ANSWERS
	$(BIN)/python -m pytest tests/test_stack.py

.PHONY: test-drills
test-drills: .venv/done ## Break the containers of the variants under load, or of that of ANSWERS
	$(BIN)/python -m pytest tests/test_drills.py

.PHONY: lint
lint: .venv/done ## Check style and types: of the tools, of the template as it lies there, of every rendered variant
	$(BIN)/python -m pytest -q --numprocesses 2 tests/test_lint.py

.PHONY: lock
lock: .venv/done ## Resolve the newest releases that the template allows
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python tools/lock.py

.PHONY: swagger-ui
swagger-ui: .venv/done ## Put a release of Swagger UI into the template, by npm (VERSION=5.35.0)
	@mkdir -p build
	npm pack --silent --pack-destination build swagger-ui-dist@$(VERSION)
	$(BIN)/python -m tools.swagger_ui build/swagger-ui-dist-$(VERSION).tgz

.venv/done: pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.13 or newer is needed: install it, or name it with make PYTHON=/path/to/python."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.13,<0.14'
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --requirement pyproject.toml --group dev
	@touch $@

.PHONY: bench-quick
bench-quick: .venv/done ## Measure the ratios that guard the architecture
	$(BIN)/python -m benchmarks quick

.PHONY: bench
bench: .venv/done ## Measure every workload of every contender, and write docs/benchmarks.md
	$(BIN)/python -m benchmarks full
	$(BIN)/python -m benchmarks.page build/bench docs

.PHONY: costs
costs: .venv/done ## Measure what a request costs each part, and write docs/scaling.md
	$(BIN)/python -m benchmarks costs
	$(BIN)/python -m benchmarks.scaling build/bench docs
