"""Imports point one way, config -> resources -> api -> ops, and the runtime's tests know no resource.

The resources are those of INSTALLED_APPS that lie in this tree, so a new one needs no line anywhere.
"""

import re
from functools import cache

import grimp
from django.apps import apps

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
