"""The table of API keys. It holds no key, only the SHA-256 of each.

A row is one key. Its name is the client's, and stays while keys are rotated:

    state    | is set                          | is valid
    ---------+---------------------------------+------------------------------------------------------
    current  |                                 | until `time_expires`, if there is one
    replaced | time_replaced, by a rotation    | until `time_expires`, the end of the grace time
    revoked  | time_revoked                    | no more

A name has one current key at most. During a rotation, one replaced key is valid as well.
"""

from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q

from api.cache.querysets import InvalidatingQuerySet
from api.keys.minting import PREFIX_CHARACTERS

DIGEST_CHARACTERS = 64
NAME = RegexValidator(
    r"\A[A-Za-z0-9][A-Za-z0-9._@-]{0,63}\Z",
    "A name has up to 64 letters, digits and . _ @ -, and begins with a letter or digit.",
)


class ApiKey(models.Model):
    name = models.CharField(max_length=64, validators=[NAME])
    prefix = models.CharField(max_length=PREFIX_CHARACTERS, unique=True)
    digest = models.CharField(max_length=DIGEST_CHARACTERS)  # SHA-256, in hexadecimal digits
    scopes = models.CharField(max_length=1000, blank=True)  # separated by spaces, as in RFC 6749
    time_created = models.DateTimeField()
    time_expires = models.DateTimeField(null=True, blank=True)
    time_replaced = models.DateTimeField(null=True, blank=True)
    time_revoked = models.DateTimeField(null=True, blank=True)
    time_used = models.DateTimeField(null=True, blank=True)  # exact to ten minutes: api/keys/lookup.py

    objects = InvalidatingQuerySet.as_manager()

    class Meta:
        base_manager_name = "objects"
        verbose_name = "API key"
        ordering = ("name", "time_created")
        constraints = (
            models.UniqueConstraint(
                fields=("name",), condition=Q(time_replaced=None, time_revoked=None), name="api_key_current"
            ),
        )

    def __str__(self) -> str:
        return f"{self.name} {self.prefix}"
