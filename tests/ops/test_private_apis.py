"""The names of libraries that are used beyond their documentation: an upgrade that lacks one fails here."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from ops.checks import private_apis
from ops.checks.private_apis import PRIVATE, check_private_apis, missing, refuse_missing

PAGE = Path(__file__).parents[2] / "docs" / "decisions" / "0018-private-apis.md"
NAMES = [
    (package, owner, name)
    for package, owners in PRIVATE.items()
    for owner in owners
    for name in owners[owner]
]


def test_no_name_is_missing() -> None:
    assert missing() == []


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        ("asgiref.sync.SyncToAsync", "context_to_thread"),  # a class without it
        ("uvicorn.protocols.http.httptools_impl.RequestResponseCycle", "response_finished"),
        ("uvicorn.protocols.http.httptools", "STATUS_LINE"),  # no such module
        ("uvicorn.Serving", "started"),  # no such class
    ],
)
def test_a_missing_name_ends_the_start_in_one_line(
    monkeypatch: pytest.MonkeyPatch, owner: str, name: str
) -> None:
    monkeypatch.setattr(private_apis, "PRIVATE", {"uvicorn": {owner: (name,)}})
    with pytest.raises(ImproperlyConfigured, match=re.escape(f"{owner}.{name} (uvicorn)")):
        refuse_missing()
    (message,) = check_private_apis()
    assert message.id == "ops.E080"


def test_what_serves_looks_them_up() -> None:
    program = (
        "from ops.checks import private_apis\n"
        "private_apis.PRIVATE = {'uvicorn': {'uvicorn': ('gone',)}}\n"
        "import config.asgi"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "ImproperlyConfigured: " in run.stderr.splitlines()[-1]
    assert "uvicorn.gone (uvicorn)" in run.stderr


def test_the_page_has_each_name() -> None:
    named = {*re.findall(r"`(\w+\.)?(\w+)`", PAGE.read_text())}
    words = {word for _, word in named}
    assert [one for one in NAMES if one[2] not in words] == []
    assert [package for package in PRIVATE if f"| {package} " not in PAGE.read_text()] == []
