"""What counts as installed, and what stays apart."""

import sys
from pathlib import Path

import pytest

from ops.tools.lab.__main__ import _beside, main
from ops.tools.lab.contender import SUB10, Contender
from ops.tools.lab.scenarios import find
from ops.tools.lab.servers import serve

NGINX = Contender(name="nginx", summary="", command=(), program="nginx")


def test_a_program_that_is_not_on_the_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert NGINX.versions is None


def test_the_version_of_a_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "nginx"
    program.write_text("#!/bin/sh\necho 'nginx version: nginx/1.22.1' >&2\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    assert NGINX.versions == "nginx/1.22.1"


def test_no_start_finds_the_keys_of_another(tmp_path: Path) -> None:
    """The prefix that a contender of Redis is given, twice."""
    script = (
        "import http.server, os, sys\n"
        "class Handler(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200); self.end_headers(); self.wfile.write(os.environ['KEY'].encode())\n"
        "http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()\n"
    )
    contender = Contender(
        name="echo",
        summary="",
        command=(sys.executable, str(tmp_path / "echo.py"), "{port}"),
        environment={"KEY": "lab:{start}:"},
    )
    (tmp_path / "echo.py").write_text(script)
    keys = []
    for _ in range(2):
        with serve(contender, 1, tmp_path, "/") as server:
            keys.append(server.get("/")[1])
    assert keys[0] != keys[1]
    assert all(key.startswith(b"lab:") for key in keys)


def test_the_service_in_another_checkout(tmp_path: Path) -> None:
    other = tmp_path / "before"
    other.mkdir()
    (other / "gunicorn.conf.py").touch()
    (twin,) = _beside(SUB10, other)
    assert (twin.name, twin.root, twin.command) == ("sub10@before", other, SUB10.command)
    assert _beside(NGINX, other) == []


def test_without_a_resource_that_says_what_to_measure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ops.tools.lab.scenarios.ROOT", tmp_path)
    assert main(["list"]) == 1
    assert capsys.readouterr().err.startswith("There is nothing to measure: no resource has a lab.py")


def test_every_resource_has_its_scenarios(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("orders", "parcels"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "lab.py").write_text(f"SCENARIOS = {{'{name}': 1}}")
    monkeypatch.setattr("ops.tools.lab.scenarios.ROOT", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert [*find()] == ["orders", "parcels"]
