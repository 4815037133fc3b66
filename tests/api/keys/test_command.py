"""`manage.py apikey`: one current key a name, shown once; two are valid while they are rotated."""

from collections.abc import Sequence
from datetime import timedelta
from io import StringIO

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.utils import timezone
from pytest_django import Settings

from api.auth import scope
from api.checks import check_authenticate
from api.keys.management.commands.apikey import Command
from api.keys.minting import KEY, digest_of
from api.keys.models import ApiKey

pytestmark = pytest.mark.django_db
GRACE = timedelta(hours=24)


def run(*command: str) -> tuple[str, str]:
    out, err = StringIO(), StringIO()
    call_command("apikey", *command, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


@pytest.fixture(autouse=True)
def routes(settings: Settings) -> None:
    settings.ROOT_URLCONF = "tests.api.keys.urls"


def test_create() -> None:
    before = timezone.now()
    out, err = run("create", "shop", "--scope", "orders:read", "--scope", "orders:write", "--expires", "90d")
    key = ApiKey.objects.get()
    [text] = out.split()
    assert KEY.fullmatch(text)
    assert (key.prefix, key.digest) == (text.split("_")[1], digest_of(text))
    assert key.scopes == "orders:read orders:write"
    assert key.time_expires
    assert before <= key.time_expires - timedelta(days=90) <= timezone.now()
    assert "shop" in err
    assert "no endpoint" not in err.lower()
    assert text not in err
    with pytest.raises(CommandError, match="shop has a key already"):
        run("create", "shop")
    _, err = run("create", "other", "--scope", "orders:wirte")
    assert "No endpoint asks for the scope orders:wirte; there are:" in err
    assert "orders:write" in err


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("create", "a b"), "A name has up to 64"),
        (("create", "x" * 65), "A name has up to 64"),
        (("create", "x", "--scope", "a b"), "cannot be a scope"),
        (("create", "x", "--expires", "90"), "is not a time such as 90d"),
        (("create", "x", "--expires", "0d"), "is not a time such as 90d"),
        (("create", "x", "--expires", "9999999999d"), "is not a time such as 90d"),
        (("rotate", "nobody"), "nobody has no key to rotate"),
        (("revoke", "nobody"), "There is no key"),
    ],
)
def test_refused(command: tuple[str, ...], said: str) -> None:
    with pytest.raises((CommandError, OverflowError), match=said):
        run(*command)
    assert not ApiKey.objects.exists()


def test_rotate_and_revoke() -> None:
    run("create", "shop", "--scope", "orders:read", "--expires", "90d")
    old = ApiKey.objects.get()
    out, err = run("rotate", "shop")
    new = ApiKey.objects.get(time_replaced=None)
    old.refresh_from_db()
    assert digest_of(out.strip()) == new.digest
    assert (new.name, new.scopes) == (old.name, old.scopes)
    assert new.time_expires
    assert new.time_expires - new.time_created == timedelta(days=90)
    assert old.time_expires == (old.time_replaced or timezone.now()) + GRACE
    assert old.prefix in err
    with pytest.raises(CommandError, match=f"shop has two keys already: {old.prefix} is valid until"):
        run("rotate", "shop")
    run("revoke", old.prefix)
    run("rotate", "shop", "--grace", "30m", "--expires", "10d")
    states = [line.split()[:3] for line in run("list")[0].splitlines()[1:]]
    assert [state for _, _, state in states] == ["revoked", "replaced", "current"]
    run("revoke", "shop")
    assert not ApiKey.objects.filter(time_revoked=None).exists()
    assert run("create", "shop")[0]  # the name is free again
    assert digest_of(out.strip()) not in run("list")[0]


def test_a_key_that_is_made_under_a_revocation_is_revoked(monkeypatch: pytest.MonkeyPatch) -> None:
    revoke = Command._revoke
    run("create", "shop")

    def revoke_late(command: Command, which: str) -> Sequence[ApiKey]:
        keys = revoke(command, which)
        if len(ApiKey.objects.all()) == 1:
            run("create", "shop")
        return keys

    monkeypatch.setattr(Command, "_revoke", revoke_late)
    assert run("revoke", "shop")[1].count("is revoked") == 2
    assert not ApiKey.objects.filter(time_revoked=None).exists()


def test_a_shorter_life_is_not_made_longer_by_grace() -> None:
    run("create", "shop", "--expires", "1h")
    expires = ApiKey.objects.get().time_expires
    run("rotate", "shop")
    assert ApiKey.objects.exclude(time_replaced=None).get().time_expires == expires


def test_what_is_no_scope_and_no_authenticator(settings: Settings) -> None:
    for name in ("", "a b", 'a"b', "a\\b", "é", "a" * 101):
        with pytest.raises(ImproperlyConfigured, match="cannot be scopes"):
            scope(name)
    assert check_authenticate() == []
    for wrong in ("api.keys.lookup.missing", "missing.module", "api.keys.minting.mint"):
        settings.AUTHENTICATE = wrong
        assert [message.id for message in check_authenticate()] == ["api.E006"]
