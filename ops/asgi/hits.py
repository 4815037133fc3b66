r"""How the layers around the page cache declare their effect on an answer that is written without calling them.

The wire (ops/gunicorn/wire.py) answers a fresh hit where the request is parsed. So that no promise of a layer is
skipped there, each layer declares its effect on a hit:

    class Tokens:
        def __init__(self, application: Application) -> None:
            self.application = application

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            ...                                       # called for every request but a hit

        def admits(self, hit: Hit) -> bool:           # False: the layers are called instead
            return is_known(hit.headers)

        def fields(self, hit: Hit) -> bytes:          # if the layer adds header fields: their lines
            return b"x-frame-options: DENY\r\n"

        def sent(self, hit: Hit) -> None:             # if the layer counts or logs: called after the answer
            ...

The attribute `defaults` of a layer, a `Defaults` for each scheme, has fields for every answer that lacks them
(ops/asgi/security.py). If that layer or one within it has `fields`, each hit is searched for fields of these names,
which takes 2 us. The search is left out if all these layers have an attribute `field_names`, a set of all names that
they may add, and no name of the defaults is among them.

`admits = always` is for a layer that admits every hit. A layer that defines `__call__` without `admits`, or that
keeps the next application under another name than `application`, switches the wire off: a hit then passes every
layer, at two thirds of the speed. `manage.py check --deploy` names that layer (ops.W070), and so does the log at the
start.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

from ops.asgi.answering import NONE, Defaults
from ops.asgi.types import Fields

NO_DEFAULTS = {"http": NONE, "https": NONE}


class Hit:
    """A GET or HEAD request that the wire may answer, or refuse for overload, as the layers see it.

    A connection has one such object for all of its requests. The layers read it; only Head sets `head_only`,
    ForwardedProto `scheme`, and Telemetry `seconds`.
    """

    __slots__ = (
        "began", "client", "head_only", "headers", "method", "route", "scheme", "seconds", "status", "target",
    )  # fmt: skip

    method: str
    target: bytes  # path and query as they came
    headers: Fields  # names in lower case
    client: tuple[str, int] | None  # address and port; None for a unix socket
    scheme: str  # `http` or `https`
    head_only: bool  # whether the answer is sent without its content
    began: float  # when its first byte was read, by perf_counter
    # The answer's, for `fields` and `sent` to read:
    route: str  # the URL pattern that it is filed under
    status: int
    seconds: float  # for `sent` only: from the first byte of the request until the answer was put together


class Front(NamedTuple):
    """The layers between the server and the answers that are ready."""

    ready: Mapping[bytes, Any]  # answers of the page cache (wire.Ready), by request target
    admits: Sequence[Callable[[Hit], bool]]  # outermost first, as requests meet them
    # those that are not pure: for a request that equals the one before
    admits_again: Sequence[Callable[[Hit], bool]]
    fields: Callable[[Hit], bytes]  # returns the lines of all layers, outermost last, as answers meet them
    sent: Callable[[Hit], None]  # calls that of each layer, outermost last
    defaults: Mapping[str, Defaults]  # of all answers, by the scheme of the request
    # the first layer that does not declare its effect on a hit, or None; if there is one, `ready` is empty
    undeclared: object


Admits = TypeVar("Admits", bound=Callable[[Any, Hit], bool])


def pure(admits: Admits) -> Admits:
    """Mark an `admits` that depends only on the request.

    It is not called again if the same connection sends the same bytes right after a hit. It has set the hit already.
    """
    admits.is_pure = True  # type: ignore[attr-defined]
    return admits


def always(_layer: object, _hit: Hit) -> bool:
    """The `admits` of a layer that admits every hit."""
    return True


@lru_cache(maxsize=8)
def front_of(application: object) -> Front:
    """Return the layers of an application, from the one that the server calls to the one with ready answers."""
    layers: list[Any] = []
    layer: Any = application
    # Attributes count only in the class that defines `__call__`: a wrapper that passes attributes on, or that
    # functools.wraps made, has the `ready` of the layer that it wraps.
    while True:
        caller = next((kind for kind in type(layer).__mro__ if "__call__" in vars(kind)), object)
        if "ready" in vars(caller):
            break
        if not hasattr(layer, "application") or "admits" not in vars(caller):
            return Front({}, (), (), _joined(()), _in_turn(()), _defaults(layers), layer)
        layers.append(layer)
        layer = layer.application
    admits = [each.admits for each in layers if type(each).admits is not always]
    return Front(
        layer.ready,
        admits,
        [one for one in admits if not hasattr(one, "is_pure")],
        _joined([each.fields for each in reversed(layers) if hasattr(each, "fields")]),
        _in_turn([each.sent for each in reversed(layers) if hasattr(each, "sent")]),
        _defaults(layers),
        None,
    )


def undeclared_layer(application: object) -> str:
    """Return the dotted name of the layer that switches the wire off; empty if there is none."""
    undeclared = front_of(application).undeclared
    kind = undeclared if hasattr(undeclared, "__qualname__") else type(undeclared)
    return "" if undeclared is None else f"{kind.__module__}.{kind.__qualname__}"


def _defaults(layers: Sequence[Any]) -> Mapping[str, Defaults]:
    """Return, by scheme, the defaults of the outermost layer that has some, with `may_be_present` set."""
    index = next((index for index, each in enumerate(layers) if hasattr(each, "defaults")), None)
    if index is None:
        return NO_DEFAULTS
    adding = [each for each in layers[index:] if hasattr(each, "fields")]
    return {
        scheme: Defaults(
            defaults.fields,
            may_be_present=any(
                not defaults.names.isdisjoint(getattr(each, "field_names", defaults.names)) for each in adding
            ),
        )
        for scheme, defaults in layers[index].defaults.items()
    }


def _joined(fields: Sequence[Callable[[Hit], bytes]]) -> Callable[[Hit], bytes]:
    """Return a function that joins the lines of all layers; a single one as it is, since it runs at each hit."""
    return fields[0] if len(fields) == 1 else lambda hit: b"".join([each(hit) for each in fields])


def _in_turn(sent: Sequence[Callable[[Hit], None]]) -> Callable[[Hit], None]:
    """Return a function that calls all functions of `sent`; a single one as it is."""

    def all_of_them(hit: Hit) -> None:
        for each in sent:
            each(hit)

    return sent[0] if len(sent) == 1 else all_of_them
