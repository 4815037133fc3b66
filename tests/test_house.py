"""What a new package must not slip past."""

import re
import tomllib

import pytest
from django.apps import apps

from ops.embedded.paths import ROOT

LINTER = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
PACKAGES = {file.parent.name for file in ROOT.glob("[!.]*/__init__.py")} - {"tests"}
APPS = {app.name.split(".")[0] for app in apps.get_app_configs() if (ROOT / app.name.split(".")[0]).is_dir()}


@pytest.mark.parametrize("package", sorted(PACKAGES | APPS))
def test_imports_of_every_package_are_checked(package: str) -> None:
    """In pyproject.toml: `root_packages`, and a layer, which siblings share: "products | orders"."""
    (layers,) = (contract["layers"] for contract in LINTER["contracts"] if contract["type"] == "layers")
    assert package in LINTER["root_packages"]
    assert package in re.findall(r"\w+", " ".join(layers))
