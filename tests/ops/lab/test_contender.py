"""What counts as installed, and what stays apart."""

import sys
from pathlib import Path

import pytest

from ops.lab.contender import Contender
from ops.lab.contenders.cached import CACHED
from ops.lab.contenders.uncached import UNCACHED
from ops.lab.scenarios import SCENARIOS
from ops.lab.servers import serve

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


@pytest.mark.parametrize("contenders", [UNCACHED, CACHED])
def test_names_are_unique(contenders: tuple[Contender, ...]) -> None:
    assert len({contender.name for contender in contenders}) == len(contenders)


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_service_keeps_no_pages_where_the_peers_keep_none(name: str) -> None:
    modes = {
        contender.name: contender.environment["PAGE_CACHE"]
        for contender in SCENARIOS[name].contenders
        if contender.name.startswith("sub10")
    }
    kept = {each: "l2" if each == "sub10-l2" else "on" for each in modes}
    assert modes == (kept if name == "cached100" else dict.fromkeys(modes, "off"))
    assert "sub10" in modes


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
        with serve(contender, 1, tmp_path) as server:
            keys.append(server.get("/")[1])
    assert keys[0] != keys[1]
    assert all(key.startswith(b"lab:") for key in keys)
