"""The name and the version of the service, from pyproject.toml."""

import tomllib
from pathlib import Path

_project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]

NAME: str = _project["name"]
VERSION: str = _project["version"]
