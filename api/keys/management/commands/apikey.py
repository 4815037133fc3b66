"""Makes, lists, rotates and revokes API keys: docs/auth.md."""

import re
from argparse import ArgumentTypeError
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.urls import get_resolver
from django.utils import timezone

from api.auth import SCOPE, SCOPES
from api.keys.minting import digest_of, mint
from api.keys.models import ApiKey

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
MAX_DAYS = 36500


def duration(text: str) -> timedelta:
    """Read a time such as `90d`, `12h`, `30m` or `45s`."""
    found = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    length = timedelta(**{UNITS[found[2]]: int(found[1])}) if found else timedelta()
    if not timedelta() < length <= timedelta(days=MAX_DAYS):
        raise ArgumentTypeError(f"{text!r} is not a time such as 90d, 12h, 30m or 45s")
    return length


def scope_name(text: str) -> str:
    if not SCOPE.fullmatch(text):
        raise ArgumentTypeError(f"{text!r} cannot be a scope: it has a space, a quote or a backslash")
    return text


class Command(BaseCommand):
    help = (
        "Makes, lists, rotates and revokes API keys. A new key is written to stdout, once; nothing keeps it."
    )

    requires_system_checks = ()  # a leaked key can be revoked even if a check fails

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        create = actions.add_parser("create", help="make a key for a client")
        create.add_argument(
            "name", help="the client's name: in the log, in lists, the same while keys are rotated"
        )
        create.add_argument(
            "--scope",
            dest="scopes",
            action="extend",
            nargs="+",
            type=scope_name,
            default=[],
            help="what the key allows, such as products:write",
        )
        create.add_argument("--expires", type=duration, help="when it ends: 90d, 12h; never, if left out")
        actions.add_parser("list", help="all keys by name, without the keys themselves")
        rotate = actions.add_parser(
            "rotate", help="make the next key of a client; the old one stays valid for a while"
        )
        rotate.add_argument("name")
        rotate.add_argument(
            "--grace", type=duration, default="24h", help="how long the old one stays valid (%(default)s)"
        )
        rotate.add_argument(
            "--expires", type=duration, help="when the new one ends; as long as the old one, if left out"
        )
        revoke = actions.add_parser("revoke", help="end a key, or all keys of a client, at once")
        revoke.add_argument("which", metavar="NAME|PREFIX")

    def handle(self, *_args: Any, action: str, **options: Any) -> None:
        given = {name: options[name] for name in ARGUMENTS[action]}
        getattr(self, action)(**given)

    def create(self, name: str, scopes: Sequence[str], expires: timedelta | None) -> None:
        _ = get_resolver().url_patterns  # imports the endpoints, which say which scopes there are
        for unknown in sorted({*scopes} - SCOPES):
            known = ", ".join(sorted(SCOPES)) or "none"
            self.stderr.write(f"No endpoint asks for the scope {unknown}; there are: {known}.")
        self._show(*self._make(name, " ".join(dict.fromkeys(scopes)), expires))

    def list(self) -> None:
        now = timezone.now()
        rows = [("NAME", "PREFIX", "STATE", "EXPIRES", "LAST USED", "SCOPES")]
        for key in ApiKey.objects.all():
            state = "replaced" if key.time_replaced else "current"
            if key.time_revoked:
                state = "revoked"
            elif key.time_expires and key.time_expires <= now:
                state = "expired"
            expires, used = _date(key.time_expires), _date(key.time_used)
            rows.append((key.name, key.prefix, state, expires, used, key.scopes))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            self.stdout.write("  ".join(map(str.ljust, row, widths)).rstrip())

    def rotate(self, name: str, grace: timedelta, expires: timedelta | None) -> None:
        with transaction.atomic():
            keys = [*ApiKey.objects.select_for_update().filter(name=name, time_revoked=None)]
            now = timezone.now()
            old = next((key for key in keys if key.time_replaced is None), None)
            if old is None:
                raise CommandError(f"{name} has no key to rotate: apikey create {name}")
            for key in keys:
                if key.time_replaced and key.time_expires and key.time_expires > now:
                    raise CommandError(
                        f"{name} has two keys already: {key.prefix} is valid until {_date(key.time_expires)}. "
                        f"To end it now: apikey revoke {key.prefix}"
                    )
            if expires is None and old.time_expires:
                expires = old.time_expires - old.time_created
            old.time_replaced = now
            old.time_expires = min(old.time_expires or now + grace, now + grace)
            old.save()
            made = self._make(name, old.scopes, expires)
        self._show(*made)
        self.stderr.write(f"The old key {old.prefix} is valid until {_date(old.time_expires)}.")

    def revoke(self, which: str) -> None:
        revoked: dict[int, ApiKey] = {}
        while keys := self._revoke(which):  # again for keys that were made meanwhile
            revoked |= {key.pk: key for key in keys}
        if not revoked:
            raise CommandError(f"There is no key with the name or prefix {which} that is not revoked.")
        for key in revoked.values():
            self.stderr.write(f"{key.name} {key.prefix} is revoked.")

    @transaction.atomic
    def _revoke(self, which: str) -> Sequence[ApiKey]:
        found = ApiKey.objects.select_for_update().filter(Q(name=which) | Q(prefix=which), time_revoked=None)
        keys = [*found]
        for key in keys:
            key.time_revoked = timezone.now()
            key.save(update_fields=["time_revoked"])
        return keys

    @staticmethod
    def _make(name: str, scopes: str, expires: timedelta | None) -> tuple[str, ApiKey]:
        """Make a key; return its text and its row. Raises CommandError."""
        text, prefix = mint()
        now = timezone.now()
        key = ApiKey(name=name, prefix=prefix, digest=digest_of(text), scopes=scopes, time_created=now)
        key.time_expires = now + expires if expires else None
        try:
            key.clean_fields()
            with transaction.atomic():
                key.save(force_insert=True)
        except ValidationError as error:
            raise CommandError("; ".join(error.messages)) from None
        except IntegrityError:
            raise CommandError(
                f"{name} has a key already: apikey rotate {name}, or apikey revoke {name}"
            ) from None
        return text, key

    def _show(self, text: str, key: ApiKey) -> None:
        """Write a key to stdout. Call it after the commit."""
        end = _date(key.time_expires) if key.time_expires else "it is revoked"
        self.stderr.write(f"A key for {key.name}, valid until {end}. It is shown this once:")
        self.stdout.write(text)


ARGUMENTS = {
    "create": ("name", "scopes", "expires"),
    "list": (),
    "rotate": ("name", "grace", "expires"),
    "revoke": ("which",),
}


def _date(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M}Z" if moment else "-"
