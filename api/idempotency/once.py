"""One line makes a request safe to send again: it has its effect once, and gets its answer again.

    @router.post("/orders", auth=scope("orders:write"), **describe_create(ORDER_WRITES))
    @idempotent
    async def create_order(request): ...

A client sends `Idempotency-Key: "5f0c..."`, and the same field with each retry
(draft-ietf-httpapi-idempotency-key-header-07). The endpoint runs in a transaction which also stores its answer.

    the key                            | answer
    -----------------------------------+--------------------------------------------------------------------------
    is new                             | the endpoint's, which is kept for settings.IDEMPOTENCY_HOURS
    has the answer of the same request | that one, with `Idempotency-Replayed: true`; nothing runs
    has the answer of another request  | 422 idempotency_key_reused
    is that of a request that runs now | 409 idempotency_key_in_use
    cannot be read                     | 400 idempotency_key_invalid
    is missing, and `required`         | 400 idempotency_key_required
    comes to a POST not @idempotent    | 400 idempotency_key_unsupported: a key is never ignored in silence

An answer of 400 or above undoes the endpoint's writes. It is kept as well, since the same request would get it again.
Answers that say "not now" or "not you" (RELEASING), and those of 500 or above, are not kept: the next request with
the key runs anew.
"""

import asyncio
import json
import re
from collections.abc import Callable
from contextlib import suppress
from functools import update_wrapper, wraps
from hashlib import sha256
from inspect import isasyncgenfunction
from typing import Any, TypeVar, overload

import orjson
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from ninja.operation import Operation

from api.auth import Identity
from api.cache.changes import MAX_KEYS, AsyncBatch, ainvalidate
from api.cache.policy import ANY
from api.idempotency.answers import Answer, Asked, claim, keep, look
from api.problems import SAFE, Fault, Problem
from ops.asgi import problems
from ops.asgi.bodies import streams
from ops.postgres.connection import OutcomeUnknown
from ops.postgres.pool import pools
from ops.postgres.transactions import TRY_AGAIN, Transaction, in_transaction
from ops.tasks import finish

View = TypeVar("View", bound=Callable[..., Any])

FIELD, META = "Idempotency-Key", "HTTP_IDEMPOTENCY_KEY"
REPLAYED = "Idempotency-Replayed"
MAX_CHARACTERS = 255
# A string of RFC 9651, section 3.3.3, or its content without the quotes, as many clients send it. Without quotes it
# may have neither the comma that joins two fields nor the semicolon that begins a parameter.
PATTERN = rf'(?:[!#-+\--:<-\[\]-~]{{1,{MAX_CHARACTERS}}}|"(?:[ !#-\[\]-~]|\\["\\]){{1,{MAX_CHARACTERS}}}")'
KEY = re.compile(PATTERN)
# Statuses that depend on the moment or on rights, not on the request. 412 is not among them: a stale tag stays stale.
RELEASING = frozenset((401, 403, 408, 421, 425, 429))
REFUSAL = 400  # the least status that undoes the writes
FAILURE = 500  # the least status that releases the key
MAX_BODY_BYTES = 8 * 1024 * 1024  # of a kept answer: twice the content of a bulk request


@overload
def idempotent(view: View, /) -> View: ...
@overload
def idempotent(*, required: bool = False) -> Callable[[View], View]: ...
def idempotent(view: Any = None, /, *, required: bool = False) -> Any:
    """Let an async endpoint run once for each Idempotency-Key. Put it below the route.

    If `required`, a request without the field is refused.
    """

    def mark(view: View) -> View:
        view.idempotency = "required" if required else "optional"  # type: ignore[attr-defined]
        return view

    return mark if view is None else mark(view)


def idempotency_of(view: Callable[..., Any]) -> str:
    """Whether the field is `optional` or `required` for an endpoint; empty if the endpoint is not @idempotent."""
    return getattr(view, "idempotency", "")


def refusing(view: Callable[..., Any]) -> Callable[..., Any]:
    """Make the view of a POST that is not @idempotent refuse a key, since a client that sends one relies on it."""

    @wraps(view)
    def check(request: HttpRequest, **values: Any) -> Any:
        if META in request.META:
            raise _refusal(
                "unsupported", "is not taken here: a request that comes again has its effect again"
            )
        return view(request, **values)

    return check


class Once:
    """The view of an operation that is @idempotent."""

    def __init__(self, operation: Operation) -> None:
        """Raises ImproperlyConfigured for an operation that cannot run once."""
        self.operation, self.view = operation, operation.view_func
        self.is_required = idempotency_of(self.view) == "required"
        update_wrapper(self, self.view)
        sources = {getattr(model, "__ninja_param_source__", "") for model in operation.models}
        wrong = ""
        if not operation.is_async:
            wrong = "is sync: its writes would be on another connection than the answer's"
        elif {*SAFE} & {*operation.methods}:
            wrong = "answers GET, which has no effect"
        elif streams(self.view):
            wrong = "reads its content itself, which cannot be compared"
        elif isasyncgenfunction(self.view):
            wrong = "answers a stream, which cannot be kept"
        elif {"form", "file"} & sources:
            wrong = "takes a form, whose content differs each time that it is sent"
        elif not apps.is_installed("api.idempotency"):
            wrong = "needs the table of api.idempotency, which INSTALLED_APPS lacks"
        if wrong:
            name = f"{self.view.__module__}.{self.view.__name__}"
            raise ImproperlyConfigured(f"{name} is @idempotent, and {wrong}.")

    async def __call__(self, request: HttpRequest, **values: Any) -> Any:
        if META not in request.META:
            if self.is_required:
                raise _refusal("required", "is missing: this request needs one, unique to it")
            return await self.view(request, **values)
        asked = asked_by(request)
        if asyncio.get_running_loop() not in pools:  # on Django's connection, maybe in a transaction
            return await self._run(request, asked, values)
        # A client that leaves ends none of it: committed changes have to be invalidated.
        return await finish(self._run(request, asked, values))

    async def _run(self, request: HttpRequest, asked: Asked, values: dict[str, Any]) -> HttpResponse:
        """Return the answer of `_once`, or the one to its error."""
        try:
            return await self._once(request, asked, values)
        except Exception as error:  # noqa: BLE001  of which each has its answer, or is raised there
            return self.operation.api.on_exception(request, error)

    async def _once(self, request: HttpRequest, asked: Asked, values: dict[str, Any]) -> HttpResponse:
        """Return the endpoint's answer, or the kept one. Raises Problem, and errors that are no answer."""

        async def run(tx: Transaction) -> HttpResponse:
            kept, is_free = await claim(asked)
            if kept or not is_free:
                raise _Undone(kept, None)
            response = await self._respond(request, values)
            if response.status_code < REFUSAL and await _keep(asked, response, changed_in(tx)):
                return response
            raise _Undone(None, response)

        try:
            return await in_transaction(run)
        except _Undone as undone:
            kept, response = undone.kept, undone.response
        except OutcomeUnknown:
            raise Problem(
                503,
                "The database was lost under this write: it may or may not have happened. "
                "Send it again with the same Idempotency-Key, and it happens once.",
                code="write_outcome_unknown",
                headers={"Retry-After": "1"},
            ) from None
        if response is not None:
            if response.status_code in RELEASING or response.status_code >= FAILURE:
                return response
            if response.status_code >= REFUSAL and await _keep(asked, response, {}):
                return response
            kept = await look(asked)  # another request with the key was faster
        if not kept:
            raise Problem(
                409,
                "A request with this Idempotency-Key is under way. Try again later, for its answer.",
                code="idempotency_key_in_use",
                headers={"Retry-After": "1"},
            )
        return await replay(kept, asked)

    async def _respond(self, request: HttpRequest, values: dict[str, Any]) -> HttpResponse:
        """Return the endpoint's answer, as Ninja makes it of a result or an error.

        Raises errors that are a fault of the service, and those after which the transaction may begin again.
        """
        try:
            result = await self.view(request, **values)
            named = self.operation.signature.response_arg
            made = values[named] if named else self.operation.api.create_temporal_response(request)
            response: Any = self.operation._result_to_response(request, result, made)  # noqa: SLF001  0018
        except TRY_AGAIN:
            raise
        except Exception as error:  # noqa: BLE001
            response = self.operation.api.on_exception(request, error)
        return response  # type: ignore[no-any-return]


class _Undone(Exception):
    """Undoes the transaction. Carries a kept answer, or the endpoint's, or neither if the key is in use."""

    def __init__(self, kept: Answer | None, response: HttpResponse | None) -> None:
        super().__init__()
        self.kept, self.response = kept, response


def changed_in(tx: Transaction) -> dict[str, list[str]]:
    """Return the primary keys of the rows that a transaction has changed, by the model's label; ANY for many rows."""
    batches = [hook for hook in tx.hooks if isinstance(hook, AsyncBatch)]
    return {
        model._meta.label: [ANY] if len(keys) > MAX_KEYS else sorted(map(str, keys))
        for batch in batches
        for model, keys in batch.keys.items()
    }


async def _keep(asked: Asked, response: HttpResponse, changed: dict[str, list[str]]) -> bool:
    """Keep the answer; return False if the key has one already.

    Raises TypeError for a stream and for cookies, ValueError for a body that is too long.
    """
    if response.streaming or response.cookies:
        raise TypeError(
            "An answer to a request with an Idempotency-Key can be neither a stream nor have cookies."
        )
    if len(response.content) > MAX_BODY_BYTES:
        raise ValueError(f"An answer of {len(response.content)} bytes: {MAX_BODY_BYTES} are kept at most.")
    status, fields = response.status_code, [*response.items()]
    return await keep(asked, Answer(asked.request, status, fields, response.content, changed))


async def replay(kept: Answer, asked: Asked) -> HttpResponse:
    """Return the kept answer once more. Raises Problem 422 if it is another request's.

    The worker that made it may have died before it published its changes, so cached answers are dropped once more.
    """
    if kept.request != asked.request:
        detail = (
            "belongs to another request: one with other content, another type of content or another query"
        )
        raise _refusal("reused", detail, status=422)
    for label, keys in kept.changed.items():
        with suppress(LookupError):  # a model of an earlier release
            await ainvalidate(apps.get_model(label), *keys)
    fields = dict(kept.fields)
    response = HttpResponse(kept.body, status=kept.status, headers=fields)
    if "content-type" not in map(str.lower, fields):  # Django has then added one
        del response["Content-Type"]
    response[REPLAYED] = "true"
    if kept.status >= REFUSAL and response.get("Content-Type") == problems.CONTENT_TYPE:
        with suppress(ValueError, LookupError, TypeError):  # a view may write a problem without a code
            problems.count(str(orjson.loads(kept.body)["code"]))
    return response


def asked_by(request: HttpRequest) -> Asked:
    """Return the digests of a request with a key. Raises Problem 400 for a key that cannot be read.

    A key belongs to one client, by the name of its credential, and counts for one method and path.
    """
    field = request.META[META].strip(" \t")
    if not KEY.fullmatch(field):
        detail = (
            f'is not 1 to {MAX_CHARACTERS} visible characters of ASCII in one field: "in quotes", or without, '
            "and then without comma, semicolon and backslash"
        )
        raise _refusal("invalid", detail)
    key = re.sub(r"\\(.)", r"\1", field[1:-1]) if field.startswith('"') else field
    key_of = json.dumps([client_of(request), request.method, request.path_info, key])
    parts = (request.META.get("QUERY_STRING", ""), request.META.get("CONTENT_TYPE", ""))
    content = sha256(json.dumps(parts).encode() + b"\n")
    content.update(request.body)
    return Asked(sha256(key_of.encode()).digest(), content.digest())


def client_of(request: HttpRequest) -> str | None:
    """Return the name of the client; None if the endpoint asks for no credential: all its clients share their keys.

    Raises TypeError for an identity that is no api.Identity: without its name, keys of two clients could be the same.
    """
    identity = getattr(request, "auth", None)
    if identity is None or isinstance(identity, Identity):
        return identity.name if identity else None
    raise TypeError(f"@idempotent needs the client's name: an api.Identity, not {type(identity).__name__}.")


def _refusal(reason: str, detail: str, *, status: int = 400) -> Problem:
    fault = Fault(parameter=FIELD, code=reason, detail=detail)
    return Problem(status, f"{FIELD}: {detail}.", code=f"idempotency_key_{reason}", errors=[fault])
