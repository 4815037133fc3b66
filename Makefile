# The commands of this repository, the same for people and CI. They need only make and Python 3.11 or newer; image and
# sbom also need Docker.

SHELL := /bin/sh
# With -E and -s, Python ignores the variables that a user has set for other Pythons, and the packages in the home.
PYTHON = python=$$(sh ops/tools/embedded/find-python.sh) && exec "$$python" -E -s
RUN = $(PYTHON) -m ops.tools.embedded

.PHONY: help up test check conformance fuzz chaos audit format manage remove-sample lab load dashboards image sbom venv lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' Makefile

up: ## the service with made-up rows on http://127.0.0.1:8000 (PORT=8001 make up: on 8001)
	@$(RUN) up

test: ## everything that has to pass before a change goes in: make check, make conformance, make audit, then all tests (DJANGO=6.1: on that; ALL=runtime, ALL=1: also of what has not changed)
	@$(RUN) test

check: ## the fast part of it: format, lint, types, import directions, migrations, deployment
	@$(RUN) check

conformance: ## Django's own ASGI tests on our handler
	@$(RUN) conformance

fuzz: ## hold all operations against their OpenAPI document, for longer than `make test` does: EXAMPLES=200 SEED=7 make fuzz
	@$(RUN) fuzz

chaos: ## break what the service needs, while it is under load, and hold it to docs/reliability.md: ARGS="-k redis" make chaos
	@$(RUN) chaos $(ARGS)

audit: ## known vulnerabilities of the locked packages, and of the image where Docker is: make audit ARGS="--ignore-vuln ID"
	@$(RUN) audit $(ARGS)

# The formatter runs before the linter, so that the linter reports only the long lines that cannot be wrapped.
format: ## bring the code into its format, and name what is left for you
	@$(RUN) venv runtime dev
	@.venv/bin/ruff format --quiet; .venv/bin/ruff check --fix; left=$$?; .venv/bin/ruff format --quiet && exit $$left

manage: ## manage.py on the servers of make up: make manage ARGS="seed --rows 1000000"
	@$(RUN) manage $(ARGS)

remove-sample: ## make room for resources of your own: take out products, with all that names it in code
	@$(RUN) remove-sample

lab: ## measure the service beside its peers: make lab ARGS="closed --scenario list100"; no ARGS: all that it can do
	@$(RUN) lab $(or $(ARGS),--help)

load: ## hold the running service against its latency budget: RATE=1000 DURATION=60s make load
	@$(RUN) load

image: ## the container image, labelled with its name, version, revision and time
	@name="$$(sed -n 's/^name = "\(.*\)"/\1/p' pyproject.toml | head -1)" && docker build -t "$$name" --build-arg NAME="$$name" \
		--build-arg VERSION="$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)" \
		--build-arg REVISION="$$(git describe --always --abbrev=40 --exclude '*' --dirty)" \
		--build-arg CREATED="$$(date -u +%Y-%m-%dT%H:%M:%SZ)" $(ARGS) .

sbom: ## what the image installs, in CycloneDX: .local/sbom/image.cdx.json
	@docker build --target sbom --output .local/sbom $(ARGS) .

dashboards: ## write ops/monitoring/grafana/dashboards/*.json, out of ops/monitoring/grafana/boards/*.py and docs/runbook.md
	@$(PYTHON) -m ops.monitoring.grafana

venv: ## .venv with all dependency groups, for an editor
	@$(RUN) venv

lock: ## renew requirements/*.txt after a change of pyproject.toml (ARGS=--upgrade: to the newest versions)
	@$(RUN) lock $(ARGS)

clean: ## stop leftover servers; remove .venv, .local (with the data) and caches
	@$(RUN) clean
