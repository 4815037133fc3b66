"""Each measurement looks at the answers twice: before the load, and at what a cache has kept once it is warm."""

import shutil
import sys
from pathlib import Path

import pytest
from rich.console import Console

from ops.tools.lab.contender import Contender
from ops.tools.lab.failure import LabError
from ops.tools.lab.rounds import Plan, Target, measure
from ops.tools.lab.scenarios import Question

pytestmark = pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is not installed")

# A server whose answers have the row with id 1 until it has answered so many, and then one with id 2.
SERVER = """
import itertools, json, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

answered = itertools.count()

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = json.dumps([{"id": 1 if next(answered) < int(sys.argv[2]) else 2}]).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass

ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def measured(directory: Path, right: int) -> None:
    """One measurement, warmed up, of the server that answers so many times rightly."""
    (directory / "server.py").write_text(SERVER)
    contender = Contender(
        name="forgetful",
        summary="",
        command=(sys.executable, str(directory / "server.py"), "{port}", str(right)),
    )
    plan = Plan(
        scenario="cached100",
        summary="",
        contenders=[contender],
        rates=[None],
        rounds=1,
        seconds=1,
        warmup=1,
        workers=1,
        connections=2,
        output=directory,
        postgres=None,
        redis=0,
    )
    question = Question(paths=["/api/products?limit=1"], answers=[[{"id": 1}]])
    measure(plan, [Target("forgetful", contender, question)], Console(quiet=True))


@pytest.mark.parametrize("right", [1, 10])  # the first answer is the one that it has started
def test_an_answer_that_goes_wrong(tmp_path: Path, right: int) -> None:
    with pytest.raises(
        LabError, match=r"forgetful answers /api/products\?limit=1 differently: row 1: id is 2"
    ):
        measured(tmp_path, right)


def test_an_answer_that_stays_right(tmp_path: Path) -> None:
    measured(tmp_path, 1_000_000)
