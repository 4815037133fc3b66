"""The account that the servers run as.

Postgres refuses to run as root, the usual user in containers and on fresh machines. For root, the servers run as the
checkout's owner or as `nobody`, and get only the rights to reach a checkout in a private home directory.
"""

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ops.tools.embedded.console import Failure
from ops.tools.embedded.paths import ROOT, postgres_program


class Account(NamedTuple):
    """The owner of the servers' files, and the prefix of a command that runs as this owner."""

    uid: int
    gid: int
    prefix: tuple[str, ...] = ()

    def own(self, path: Path) -> None:
        """Make the account the owner of `path` and of all that is in it. Only root ever has to."""
        if path.stat().st_uid != self.uid:
            for each in (*path.rglob("*"), path):
                os.chown(each, self.uid, self.gid, follow_symlinks=False)


def choose(directory: Path) -> Account:
    """Return the first account that can run the servers' programs and reach `directory`, which becomes its own.

    For any user but root, this is the user's account. Raises Failure if no account can.
    """
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid())
    for account in _candidates():
        if not shutil.which(account.prefix[0]):
            continue
        # A trial is surer than a look at modes, capabilities, namespaces and security modules.
        pg_config, parent = str(postgres_program("pg_config")), str(directory.parent)
        trial = [*account.prefix, "sh", "-c", '"$0" --bindir && test -x "$1"', pg_config, parent]
        if subprocess.run(trial, capture_output=True, check=False).returncode == 0:
            account.own(directory)
            return account
    raise Failure(
        "Postgres refuses to run as root, and here root cannot run it as another user (util-linux's setpriv "
        "and unshare both failed): run make as an ordinary user, or set DATABASE_URL and REDIS_URL"
    )


def _candidates() -> Iterator[Account]:
    """Yield the accounts to try, from the least privileged to the most."""
    try:
        user = pwd.getpwuid(ROOT.stat().st_uid or pwd.getpwnam("nobody").pw_uid)
    except KeyError:
        raise Failure("there is no user `nobody` for Postgres, which refuses to run as root") from None
    become = ("setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups")
    yield Account(user.pw_uid, user.pw_gid, become)
    # For a checkout in a directory that is closed to others (/root): keep the one capability that opens it. Without
    # the secure bit, access(2), which Postgres calls, would ignore the capability.
    keep = (
        "--securebits=+no_setuid_fixup",
        "--inh-caps=-all,+dac_override",
        "--ambient-caps=-all,+dac_override",
    )
    yield Account(user.pw_uid, user.pw_gid, (*become, *keep))
    # For a sandbox that has root as its only user: another id, in a user namespace.
    yield Account(0, 0, ("unshare", "--user", f"--map-user={user.pw_uid}"))
