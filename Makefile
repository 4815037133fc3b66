# The commands of this repository, the same for people and CI. They need make and Python 3.11 or newer, no more; image
# and sbom need Docker.

SHELL := /bin/sh
RUN = python=$$(sh ops/embedded/find-python.sh) && exec "$$python" -m ops.embedded
LOCK = .venv/bin/uv pip compile --universal --python-version 3.11 --generate-hashes --quiet \
	--custom-compile-command 'make lock' $(ARGS)

.PHONY: help up test check conformance format manage lab load dashboards image sbom venv lock clean

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

load: ## hold the running service against its latency budget: RATE=1000 DURATION=60s make load
	@$(RUN) load

image: ## the container image sub10, labelled with its version, revision and time
	@docker build -t sub10 --build-arg VERSION="$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)" \
		--build-arg REVISION="$$(git describe --always --abbrev=40 --exclude '*' --dirty)" \
		--build-arg CREATED="$$(date -u +%Y-%m-%dT%H:%M:%SZ)" $(ARGS) .

sbom: ## what the image installs, in CycloneDX: .local/sbom/sub10.cdx.json
	@docker build --target sbom --output .local/sbom $(ARGS) .

dashboards: ## write ops/grafana/dashboards/*.json, out of ops/grafana/boards/*.py and docs/runbook.md
	@python=$$(sh ops/embedded/find-python.sh) && exec "$$python" -m ops.grafana

venv: ## .venv with all dependency groups, for an editor
	@$(RUN) venv

lock: ## renew requirements/*.txt after a change of pyproject.toml (ARGS=--upgrade: to the newest versions)
	@$(RUN) venv runtime dev
	@set -e; $(LOCK) pyproject.toml -o requirements/runtime.txt; known='-c requirements/runtime.txt'; \
	for group in embedded dev profile lab sbom; do \
		$(LOCK) --group $$group $$known -o requirements/$$group.txt; \
		known="$$known -c requirements/$$group.txt"; \
	done

clean: ## stop leftover servers; remove .venv, .local (with the data) and caches
	@$(RUN) clean
