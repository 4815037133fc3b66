"""What `make audit` makes of pip-audit's answers; with pip-audit itself, where `make audit` has installed it."""

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ops.tools.embedded import audit
from ops.tools.embedded.audit import Report, UnreachableError
from ops.tools.embedded.console import Failure

CLEAN = {"name": "django", "version": "5.2.19", "vulns": []}
FAULTY = {
    "name": "jinja2",
    "version": "2.4.1",
    "vulns": [
        {"id": "PYSEC-2014-8", "fix_versions": ["2.7.2"], "aliases": ["CVE-2014-1402"], "description": "..."},
        {"id": "PYSEC-2099-1", "fix_versions": [], "aliases": [], "description": "..."},
    ],
}
UNKNOWN = {"name": "ours", "skip_reason": "Dependency not found on PyPI and could not be audited: ours (1)"}


def test_a_report() -> None:
    found = ["jinja2 2.4.1: PYSEC-2014-8, mended in 2.7.2", "jinja2 2.4.1: PYSEC-2099-1, not mended"]
    assert audit.read({"dependencies": [CLEAN, FAULTY, UNKNOWN]}) == Report(2, ["ours"], found)


@pytest.mark.parametrize("packages", [[], [UNKNOWN]])
def test_a_service_that_knows_nothing_is_none(packages: list[object]) -> None:
    """As a mirror that has packages and no advisories, which pip-audit itself takes for a clean bill."""
    with pytest.raises(UnreachableError):
        audit.read({"dependencies": packages})


def test_the_packages_of_a_bill_of_materials() -> None:
    components = [
        {"name": "django", "version": "5.2.19", "purl": "pkg:pypi/django@5.2.19"},
        {"name": "sub10", "version": "0.1.0"},
        {"name": "openssl", "version": "3", "purl": "pkg:deb/debian/openssl@3"},
    ]
    assert audit.requirements({"components": components}) == "django==5.2.19\n"


class Osv(BaseHTTPRequestHandler):
    """Answers as osv.dev does: there is something about each version of jinja2."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        affected = {"package": {"name": "jinja2", "ecosystem": "PyPI"}, "ranges": [], "versions": ["3.1.6"]}
        fault = {"id": "PYSEC-2099-1", "summary": "x", "aliases": [], "affected": [affected]}
        body = json.dumps({"vulns": [fault]} if asked["package"]["name"] == "jinja2" else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def osv() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Osv)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str, requirement: str, *options: str) -> int:
    if not (audit.VENV / "bin/pip-audit").exists():
        pytest.skip("pip-audit is not installed: `make audit` does that")
    (tmp_path / "locked.txt").write_text(requirement)
    monkeypatch.setattr(audit, "LOCKS", [tmp_path / "locked.txt"])
    service = ["--vulnerability-service", "osv", "--osv-url", url, "--no-deps"]
    monkeypatch.setattr(sys, "argv", ["", "audit", *options, *service])
    return audit.audit()


def test_a_vulnerability_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with osv() as url:
        assert run(monkeypatch, tmp_path, url, "markupsafe==3.0.3\n", "--if-reachable") == 0
        assert "1 packages audited" in capsys.readouterr().out
        with pytest.raises(Failure, match="known vulnerabilities: 1"):
            run(monkeypatch, tmp_path, url, "jinja2==3.1.6\n", "--if-reachable")
    assert "jinja2 3.1.6: PYSEC-2099-1, not mended" in capsys.readouterr().out


def test_without_a_service(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It fails where it was asked for, and is a line in `make test`."""
    url = "http://127.0.0.1:9/"
    with pytest.raises(UnreachableError):
        run(monkeypatch, tmp_path, url, "jinja2==3.1.6\n")
    assert run(monkeypatch, tmp_path, url, "jinja2==3.1.6\n", "--if-reachable") == 0
    assert "Not audited: pip-audit says: " in capsys.readouterr().out


def test_without_an_index(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """pip-audit itself could not be installed."""

    def fail(*_: object) -> None:
        raise Failure("pip failed: the package index cannot be reached")

    monkeypatch.setattr("ops.tools.embedded.venv.ensure", fail)
    monkeypatch.setattr(sys, "argv", ["", "audit", "--if-reachable"])
    assert audit.audit() == 0
    assert capsys.readouterr().out == "Not audited: pip failed: the package index cannot be reached\n"


def test_a_service_that_takes_too_long(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit, "DEADLINE_SECONDS", 0.1)
    assert run(monkeypatch, tmp_path, "http://127.0.0.1:9/", "jinja2==3.1.6\n", "--if-reachable") == 0
    assert "Not audited: there was no answer within" in capsys.readouterr().out
