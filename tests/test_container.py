"""What Dockerfile and compose.yaml must not lose. They are read, not run: none of this needs Docker."""

import re
import runpy
import tomllib
from fnmatch import fnmatch
from typing import Any

import pytest
import yaml

from config import env
from ops.tools.embedded.paths import ROOT

COMPOSE = (ROOT / "compose.yaml").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE)["services"]
OWN = [name for name, service in SERVICES.items() if "build" in service]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PINNED = re.compile(r"[\w./-]+:v?\d+(\.\d+)+(-\w+)*")
REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)", re.MULTILINE)


def stages() -> dict[str, str]:
    """The Dockerfile's stages by name; a stage that begins with another begins with its text."""
    found: dict[str, str] = {}
    for stage in re.split(r"^(?=FROM )", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)[1:]:
        _, base, _, name = stage.split("\n")[0].split()
        found[name] = found.get(base, "") + stage
    return found


def test_the_name_is_that_of_the_project() -> None:
    """compose.yaml has it once, and so has init.sql what compose.yaml hands it."""
    assert yaml.safe_load(COMPOSE)["name"] == PYPROJECT["project"]["name"]
    assert {SERVICES[name]["image"] for name in OWN} == {
        "${COMPOSE_PROJECT_NAME}",  # as `make image` tags it
        "${COMPOSE_PROJECT_NAME}-profiling",
    }
    assert SERVICES["postgres"]["environment"]["POSTGRES_DB"] == "${COMPOSE_PROJECT_NAME}"


def test_every_image_is_pinned() -> None:
    foreign = [service["image"] for name, service in SERVICES.items() if name not in OWN]
    bases = re.findall(r"^FROM (\S+:\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert len(foreign) > 5
    assert bases
    assert [image for image in (*foreign, *bases) if not PINNED.fullmatch(image)] == []


def test_only_the_api_is_reached_from_elsewhere() -> None:
    public = {
        name: port
        for name, service in SERVICES.items()
        for port in service.get("ports", ())
        if not port.startswith("127.0.0.1:")
    }
    assert public == {"api": "${PORT:-8000}:8000"}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_can_do_little_and_takes_no_more_than_its_share(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert {"cpus", "memory"} <= service["deploy"]["resources"]["limits"].keys()


@pytest.mark.parametrize("name", OWN)
def test_the_service_writes_to_memory_only(name: str) -> None:
    assert SERVICES[name]["read_only"] is True
    assert all(
        "size=" in mount for mount in SERVICES[name]["tmpfs"]
    )  # without it half of the machine's memory
    assert "volumes" not in SERVICES[name]


@pytest.mark.parametrize("name", ["api", "profiling"])
def test_requests_may_end_before_the_container_is_killed(name: str) -> None:
    graceful = runpy.run_path(str(ROOT / "gunicorn.conf.py"))["graceful_timeout"]
    assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) > graceful


def test_the_api_starts_once_its_database_is_ready() -> None:
    def waits(name: str, on: str) -> str:
        condition: str = SERVICES[name]["depends_on"][on]["condition"]
        return condition

    assert waits("migrate", "postgres") == waits("api", "cache") == "service_healthy"
    assert waits("seed", "migrate") == waits("api", "seed") == "service_completed_successfully"


def test_secrets_say_that_they_are_none() -> None:
    """config/env.py knows them by how they begin."""
    secrets = re.findall(r"\$\{(\w*(?:KEY|PASSWORD)):-([^}]*)\}", COMPOSE)
    assert {name for name, _ in secrets} == {"SECRET_KEY", "DATABASE_PASSWORD", "MONITORING_PASSWORD"}
    assert [name for name, default in secrets if not default.startswith(env.PUBLISHED)] == []


def test_the_cache_fits_into_its_memory() -> None:
    def megabytes(text: str) -> int:
        return int(text.removesuffix("mb").removesuffix("m"))

    command = dict(word.split(" ") for word in SERVICES["cache"]["command"] if " " in word)
    limit = SERVICES["cache"]["deploy"]["resources"]["limits"]["memory"]
    assert 2 * megabytes(command["--maxmemory"]) <= megabytes(limit)
    assert (command["--maxmemory-policy"], command["--save"], command["--appendonly"]) == (
        "allkeys-lru",
        '""',
        "no",
    )


def test_the_load_generators_find_their_scripts() -> None:
    for name in ("k6", "locust"):
        (script,) = (word for word in SERVICES[name]["command"] if word.startswith("/load/"))
        assert (ROOT / "ops/tools" / script.lstrip("/")).is_file()
    locked = re.search(r"^k6==(\S+)", (ROOT / "requirements/lab.txt").read_text(), re.MULTILINE)
    assert locked
    assert SERVICES["k6"]["image"] == f"grafana/k6:{locked[1]}"


def test_the_default_image_is_runtime() -> None:
    assert list(stages())[-1] == "runtime"
    assert {SERVICES[name]["build"]["target"] for name in OWN} == {"runtime", "profiling"}


@pytest.mark.parametrize("stage", ["runtime", "profiling"])
def test_an_image_runs_as_a_number_that_is_not_root(stage: str) -> None:
    users = re.findall(r"^USER (.*)", stages()[stage], re.MULTILINE)
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1])


def test_the_runtime_image_installs_the_service_alone() -> None:
    every = stages()
    copied = re.findall(r"COPY --from=(\S+)", every["runtime"])
    assert copied == ["packages", "source"]
    built = every["runtime"] + "".join(every[stage] for stage in copied)
    assert set(re.findall(r"requirements/\w+\.txt", built)) == {"requirements/runtime.txt"}
    assert (built.count("pip --python"), built.count("PIP_REQUIRE_HASHES=1")) == (1, 1)


def test_the_service_needs_nothing_of_the_other_groups() -> None:
    own, *others = (
        {match[0] for text in group if (match := REQUIREMENT.search(text))}
        for group in (PYPROJECT["project"]["dependencies"], *PYPROJECT["dependency-groups"].values())
    )
    locked = set(REQUIREMENT.findall((ROOT / "requirements/runtime.txt").read_text()))
    assert own < locked
    assert locked & set().union(*others) <= own


@pytest.mark.parametrize("path", [".env", ".git", ".venv", ".local", "dump.sql", "key.pem", "README.md"])
def test_what_lies_about_gets_into_no_image(path: str) -> None:
    first, *others = [
        line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"
    ]
    assert fnmatch(path, first)
    assert not any(fnmatch(path, line[1:]) for line in others if line[0] == "!")
