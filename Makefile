# `make` alone lists what there is. On a Debian with only make, git and Python, every target installs what it needs.

PYTHON ?= python3
VENV := .venv
# Named after the interpreter, so that another PYTHON makes another environment.
STAMP := $(VENV)/.made-with-$(subst /,-,$(PYTHON))
# The benchmarks' own environment: what amphora is compared with is no part of developing it.
BENCH := .venv-bench
BENCH_STAMP := $(BENCH)/.made-with-$(subst /,-,$(PYTHON))
# A peer that needs an older pamqp than amphora does; its tests start it as a program of its own.
AIOAMQP := build/aioamqp
# Compiled modules lie beside their sources, each named after its Python.
COMPILED := build/.compiled-with-$(subst /,-,$(PYTHON))
# The project as it is here, without what is compiled.
PURE := build/pure
# Calls and what they are on the wire. What is left out mostly waits, or is not made of what is compiled.
PURE_TESTS := tests/dialects tests/rpc --ignore tests/rpc/test_coroutines.py --ignore tests/rpc/test_options.py \
	$(patsubst %,tests/amqp/test_%.py,acks channel confirms consumers content frames message properties transport) \
	$(patsubst %,tests/test_%.py,pending recent workers)
ARGS ?=
SECONDS ?= 3600

.DEFAULT_GOAL := help
.PHONY: help venv rabbitmq compile uncompile demo test pure faults fuzz bench profile lint types docs check format clean

help: ## Show this list
	@echo 'make TARGET, where TARGET is one of'
	@sed -n 's/^\([a-z]*\):.*## \(.*\)$$/\1|\2/p' $(MAKEFILE_LIST) \
		| while IFS='|' read -r target does; do printf '  %-10s %s\n' "$$target" "$$does"; done

venv: $(STAMP) ## Make .venv: amphora as it is here, and what developing it needs (PYTHON=python3.12 for another Python)

$(STAMP): setup.cfg pyproject.toml
	tests/make-venv $(PYTHON) $(VENV)
	@touch $@

rabbitmq: ## Install RabbitMQ and its library for C, unless they are installed
	tests/install-rabbitmq
	tests/install-librabbitmq

compile: $(COMPILED) ## Compile what every call goes through, in place, as `pip install` does

$(COMPILED): $(STAMP) setup.py setup.cfg $(shell find amphora -name '*.py' -o -name '*.pxd' -o -name '*.pyx')
	tests/install-compiler $(VENV)/bin/python
	AMPHORA_PURE= AMPHORA_REQUIRE_COMPILED=1 $(VENV)/bin/python setup.py --quiet build_ext --inplace
	@touch $@

uncompile: ## Remove what `make compile` made, for a debugger or a profiler of Python
	rm -rf build/.compiled-with-* build/lib.* build/temp.*
	find amphora -name '*.so' -delete

demo: venv ## Start an embedded broker, a server and a client, and see calls return
	$(VENV)/bin/amphora demo

$(AIOAMQP): | $(STAMP)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --target $@ aioamqp

# What users get.
test faults fuzz: export AMPHORA_REQUIRE_COMPILED = 1

test: compile rabbitmq $(AIOAMQP) ## Run the tests against a private RabbitMQ (ARGS='-k words -x' goes to pytest)
	$(VENV)/bin/python -m pytest $(ARGS)

.PHONY: $(PURE)
$(PURE):
	rm -rf $@
	mkdir -p $@
	git ls-files -z --cached --others --exclude-standard \
		| tar -c --null --files-from=- --ignore-failed-read --warning=no-failed-read | tar -x -C $@

pure: venv rabbitmq $(PURE) ## Run the tests of calls and of the wire as Python, as where nothing could be compiled
	cd $(PURE) && PYTHONPATH=$(CURDIR)/$(PURE) $(CURDIR)/$(VENV)/bin/python -m pytest $(PURE_TESTS) $(ARGS)

faults: compile rabbitmq ## Inject every fault at its full size, and print the table of how each was survived (15 minutes)
	rm -rf build/faults
	@# The soak takes ten minutes and little else, so it runs beside the others; but while its broker starts, both cores
	@# are busy, and limits of a second are not for then. So what has such limits comes second.
	$(VENV)/bin/python -m pytest tests/faults/test_soak.py --full --rows build/faults/soak.json & soak=$$!; \
	$(VENV)/bin/python -m pytest tests/hostile tests/faults --ignore tests/faults/test_soak.py --full \
		--rows build/faults/others.json $(ARGS); others=$$?; \
	wait $$soak && test $$others = 0; status=$$?; \
	$(VENV)/bin/python -m tests.rows build/faults/soak.json build/faults/others.json docs/topics/fault-table.txt \
		&& exit $$status

fuzz: compile rabbitmq ## Fuzz for an hour (SECONDS=60 for a minute); what it finds is kept in tests/hostile/corpus
	$(VENV)/bin/python -m pytest tests/hostile/test_fuzzing.py --fuzz-seconds $(SECONDS) $(ARGS)

$(BENCH_STAMP): setup.cfg pyproject.toml
	tests/make-venv $(PYTHON) $(BENCH) bench
	@touch $@

bench: $(BENCH_STAMP) compile rabbitmq ## Measure amphora beside its peers, into docs/benchmarks (half an hour; ARGS='--only amphora')
	$(BENCH)/bin/python -m tests.benchmarks --output docs/benchmarks $(ARGS)

profile: $(BENCH_STAMP) rabbitmq $(PURE) ## Draw flame graphs of client and server into build/profile (ARGS='--callers 1')
	@# As Python: a profiler of Python sees nothing of what is compiled.
	cd $(PURE) && $(CURDIR)/$(BENCH)/bin/python -m tests.benchmarks.profile --output $(CURDIR)/build/profile $(ARGS)

lint: venv ## Check style, format and who imports whom
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	@# Without its cache: that keeps imports of modules which did not exist yet.
	$(VENV)/bin/lint-imports --no-cache

types: venv ## Check types
	$(VENV)/bin/mypy

docs: venv $(PURE) ## Build the documentation into docs/_build/html; a warning is an error
	@# A compiled class has lost its signature.
	PYTHONPATH=$(CURDIR)/$(PURE) $(VENV)/bin/sphinx-build -W -n --keep-going -q -b html docs docs/_build/html

check: lint types test pure docs ## Everything that must pass

format: venv ## Rewrite the code in its format
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean: uncompile ## Remove what the other targets made
	rm -rf $(VENV) $(BENCH) build dist *.egg-info docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
