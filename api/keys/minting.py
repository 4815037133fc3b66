"""The text of an API key: `sub10_k3v9x0a1b2c3_` and 43 more letters and digits.

The service's name lets a scanner for leaked secrets find a key. The prefix names the key where the key itself must
not appear: in the table, the log, a list. The secret has 256 random bits, which no guesses exhaust, so one SHA-256 of
the whole key is enough: a slow hash is for passwords, which have few bits.
"""

import re
import secrets
from hashlib import sha256
from string import ascii_letters, ascii_lowercase, digits

from ops import project

PREFIX_CHARACTERS, SECRET_CHARACTERS = 12, 43  # 62 and 256 bits
# Any name may stand in front: a service that is renamed still knows its old keys.
KEY = re.compile(rf"[a-z0-9]{{1,32}}_([a-z0-9]{{{PREFIX_CHARACTERS}}})_[A-Za-z0-9]{{{SECRET_CHARACTERS}}}")
MARK = re.sub("[^a-z0-9]", "", project.NAME.lower())[:32]


def mint() -> tuple[str, str]:
    """Return a new key, and its prefix."""
    prefix = "".join(secrets.choice(ascii_lowercase + digits) for _ in range(PREFIX_CHARACTERS))
    secret = "".join(secrets.choice(ascii_letters + digits) for _ in range(SECRET_CHARACTERS))
    return f"{MARK}_{prefix}_{secret}", prefix


def prefix_of(text: str) -> str:
    """Return the prefix of a text that has the form of a key; else an empty text."""
    found = KEY.fullmatch(text)
    return found[1] if found else ""


def digest_of(key: str) -> str:
    """Return the SHA-256 of a key in hexadecimal digits."""
    return sha256(key.encode()).hexdigest()
