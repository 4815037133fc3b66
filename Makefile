# The commands of this repository, the same for people and CI. They need make and Python 3.11 or newer, no more.

SHELL := /bin/sh
RUN = python=$$(sh ops/embedded/find-python.sh) && exec "$$python" -m ops.embedded
LOCK = .venv/bin/uv pip compile --universal --python-version 3.11 --generate-hashes --quiet \
	--custom-compile-command 'make lock' $(ARGS)

.PHONY: help up test check conformance format manage lab dashboards venv lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' Makefile

up: ## the service with 100,000 products on http://127.0.0.1:8000 (PORT=8001 make up: on 8001)
	@$(RUN) up

test: ## everything that has to pass before a change goes in: make check, make conformance, then all tests
	@$(RUN) test

check: ## the fast part of it: format, lint, types, import directions, migrations, deployment
	@$(RUN) check

conformance: ## Django's own ASGI tests on our handler
	@$(RUN) conformance

# First wrapped, then linted: a long line is only worth a complaint if the formatter cannot wrap it.
format: ## bring the code into its format, and name what is left for you
	@$(RUN) venv runtime dev
	@.venv/bin/ruff format --quiet; .venv/bin/ruff check --fix; left=$$?; .venv/bin/ruff format && exit $$left

manage: ## manage.py on the servers of make up: make manage ARGS="seed_products --rows 1000000"
	@$(RUN) manage $(ARGS)

lab: ## measure the service beside its peers: make lab ARGS="closed --scenario list100"; no ARGS: all that it can do
	@$(RUN) lab $(or $(ARGS),--help)

dashboards: ## write ops/grafana/dashboards/*.json, out of ops/grafana/boards/*.py and docs/runbook.md
	@python=$$(sh ops/embedded/find-python.sh) && exec "$$python" -m ops.grafana

venv: ## .venv with all dependency groups, for an editor
	@$(RUN) venv

lock: ## renew requirements/*.txt after a change of pyproject.toml (ARGS=--upgrade: to the newest versions)
	@$(RUN) venv runtime dev
	@set -e; $(LOCK) pyproject.toml -o requirements/runtime.txt; known='-c requirements/runtime.txt'; \
	for group in embedded dev profile lab; do \
		$(LOCK) --group $$group $$known -o requirements/$$group.txt; \
		known="$$known -c requirements/$$group.txt"; \
	done

clean: ## stop leftover servers; remove .venv, .local (with the data) and caches
	@$(RUN) clean
