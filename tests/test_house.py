"""Imports point one way, config -> resources -> api -> ops, and the runtime's tests know no resource.

The resources are those of INSTALLED_APPS that lie in this tree, so a new one needs no line anywhere.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import grimp
import pytest
from django.apps import apps

from ops.tools.embedded.gate import PARTS, files_of
from ops.tools.embedded.paths import ROOT

RUNTIME = {"api", "ops"}
PACKAGES = {file.parent.name for file in ROOT.glob("[!.]*/__init__.py")}
RESOURCES = {app.name.split(".")[0] for app in apps.get_app_configs()} & PACKAGES - RUNTIME - {"tests"}


@cache
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(*sorted(PACKAGES))


def test_every_package_has_its_place() -> None:
    assert {"config", "tests"} | RESOURCES | RUNTIME == PACKAGES


def test_imports_point_one_way() -> None:
    middle = [grimp.Layer(*RESOURCES, independent=False)] if RESOURCES else []
    wrong = graph().find_illegal_dependencies_for_layers(["config", *middle, "api", "ops"])
    assert [sorted(route.heads) + sorted(route.tails) for each in wrong for route in each.routes] == []


def test_the_runtime_and_its_tests_import_no_resource() -> None:
    wrong = {
        (importer, resource)
        for resource in RESOURCES
        for module in {resource, *graph().find_descendants(resource)}
        for importer in graph().find_modules_that_directly_import(module)
        if importer.split(".")[0] not in {resource, "config"} | RESOURCES
        and not importer.startswith(f"tests.{resource}.")
    }
    assert wrong == set()


def test_resources_come_in_by_the_door() -> None:
    """Of the runtime they import `api` itself. Their lab.py, which is no part of the service, declares scenarios."""
    wrong = {
        (importer, imported)
        for resource in RESOURCES
        for importer in {resource, *graph().find_descendants(resource)} - {f"{resource}.lab"}
        for imported in graph().find_modules_directly_imported_by(importer)
        if imported.split(".")[0] in RUNTIME and imported != "api"
    }
    assert wrong == set()


def test_nothing_imports_tests_but_tests() -> None:
    wrong = graph().find_illegal_dependencies_for_layers(
        ["tests", grimp.Layer(*(PACKAGES - {"tests"}), independent=False)]
    )
    assert wrong == set()


def test_the_service_has_its_name_from_pyproject() -> None:
    """A clone changes it there, and nowhere in the code. The lab's contender is called so as a product.

    This is the name that the repository came with: a clone's own may be a word of its code, such as `orders`.
    """
    literal = re.compile(r'["\'{ ]sub10[-"\'}: ;]')
    files = [file for package in PACKAGES - {"tests"} for file in (ROOT / package).rglob("*.py")]
    assert [str(file) for file in files if "lab" not in file.parts and literal.search(file.read_text())] == []


def imported_by(file: Path) -> Iterator[Path]:
    """The files of this tree that a module imports, with the packages above them; grimp knows no bare folders."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = file.relative_to(ROOT).parts[: -node.level] if node.level else ()
            module = ".".join((*above, *([node.module] if node.module else [])))
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    for name in names:
        for end in range(1, len(parts := name.split(".")) + 1):
            path = ROOT.joinpath(*parts[:end])
            yield from (each for each in (path.with_suffix(".py"), path / "__init__.py") if each.is_file())


@pytest.mark.parametrize("name", PARTS)
def test_a_part_of_the_gate_has_all_that_its_tests_import(name: str) -> None:
    """Else a change of it would leave them out. What they read and start is for people to add."""
    places = [path for pattern in PARTS[name].tests for path in ROOT.glob(pattern)]
    todo = [file for path in places for file in (path.rglob("*.py") if path.is_dir() else [path])]
    seen = set(todo)
    while todo:
        file = todo.pop()
        beside = [folder / "conftest.py" for folder in file.parents if folder.is_relative_to(ROOT / "tests")]
        new = {*imported_by(file), *(each for each in beside if each.is_file())} - seen
        seen |= new
        todo += new
    assert {str(file.relative_to(ROOT)) for file in seen} - {*files_of(PARTS[name])} == set()
