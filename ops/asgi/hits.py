r"""The effect of the layers around the page cache on an answer that is written without calling them.

The wire (ops/gunicorn/wire.py) answers a fresh hit where the request is parsed. So that nothing which a layer
promises is skipped there, a layer says what it does to a hit:

    class Tokens:
        def __init__(self, application: Application) -> None:
            self.application = application

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            ...                                       # every request but a hit

        def admits(self, hit: Hit) -> bool:           # False: the layers are called instead
            return is_known(hit.headers)

        def fields(self, hit: Hit) -> bytes:          # if it adds header fields: their lines
            return b"x-frame-options: DENY\r\n"

        def sent(self, hit: Hit) -> None:             # if it counts or logs: the answer was written
            ...

A layer with an attribute `defaults`, by the request's scheme, adds these fields to every answer that lacks them
(ops/asgi/security.py). Each hit is searched for them if a layer within adds fields, 2 us, unless that layer has an
attribute `field_names` with all names that it may add, and they are others.
`admits = always` is for a layer that does nothing to a hit. A layer that defines `__call__` without `admits`, or that
names the next application otherwise than `application`, switches the wire off: a hit then passes every layer, at two
thirds of the speed. `manage.py check` names that layer (ops.W070).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

from ops.asgi.answering import NONE, Defaults
from ops.asgi.types import Fields

NO_DEFAULTS = {"http": NONE, "https": NONE}


class Hit:
    """A GET or HEAD request for an answer that is ready. Layers read it.

    Head sets `head_only`, and ForwardedProto sets `scheme`.
    """

    __slots__ = (
        "began", "client", "head_only", "headers", "method", "route", "scheme", "seconds", "status", "target",
    )  # fmt: skip

    method: str
    target: bytes  # path and query as they came
    headers: Fields  # names in lower case
    client: tuple[str, int] | None  # address and port
    scheme: str  # `http` or `https`
    head_only: bool  # whether the answer goes without its content
    began: float  # when its first byte was read, by perf_counter
    # Of the answer, for `sent`:
    route: str  # the URL pattern that it is filed under
    status: int
    seconds: float  # from the first byte read until it was put together


class Front(NamedTuple):
    """The layers between the server and the answers that are ready."""

    ready: Mapping[bytes, Any]  # answers of the page cache (wire.Ready), by request target
    admits: Sequence[Callable[[Hit], bool]]  # outermost first, as requests meet them
    admits_again: Sequence[Callable[[Hit], bool]]  # without the pure ones
    fields: Callable[[Hit], bytes]  # of all layers, outermost last, as answers meet them
    sent: Callable[[Hit], None]
    defaults: Mapping[str, Defaults]  # of all answers, by the scheme of the request
    silent: object  # the layer that does not say what it does to a hit: nothing is ready then


Admits = TypeVar("Admits", bound=Callable[[Any, Hit], bool])


def pure(admits: Admits) -> Admits:
    """Mark an `admits` that looks at the request alone: it is not asked again if a connection repeats itself."""
    admits.is_pure = True  # type: ignore[attr-defined]
    return admits


def always(_layer: object, _hit: Hit) -> bool:
    """The `admits` of a layer that does nothing to a hit."""
    return True


@lru_cache(maxsize=8)
def front_of(application: object) -> Front:
    """The layers of an application, from the one that the server calls to the one that has answers ready."""
    layers: list[Any] = []
    layer: Any = application
    # By the class that defines `__call__`: a wrapper that passes attributes on, or one by functools.wraps, has a
    # `ready`, too.
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


def silent_layer(application: object) -> str:
    """The dotted name of the layer that switches the wire off, if there is one."""
    silent = front_of(application).silent
    kind = silent if hasattr(silent, "__qualname__") else type(silent)
    return "" if silent is None else f"{kind.__module__}.{kind.__qualname__}"


def _defaults(layers: Sequence[Any]) -> Mapping[str, Defaults]:
    """Those of the layer that has some."""
    index = next((index for index, each in enumerate(layers) if hasattr(each, "defaults")), None)
    if index is None:
        return NO_DEFAULTS
    adding = [each for each in layers[index:] if hasattr(each, "fields")]
    return {
        scheme: Defaults(
            defaults.fields,
            may_be_added=any(
                not defaults.names.isdisjoint(getattr(each, "field_names", defaults.names)) for each in adding
            ),
        )
        for scheme, defaults in layers[index].defaults.items()
    }


def _joined(fields: Sequence[Callable[[Hit], bytes]]) -> Callable[[Hit], bytes]:
    """A function that returns the lines of all layers: the single one itself, since it runs at each hit."""
    return fields[0] if len(fields) == 1 else lambda hit: b"".join([each(hit) for each in fields])


def _in_turn(sent: Sequence[Callable[[Hit], None]]) -> Callable[[Hit], None]:
    """A function that calls all of them, or the single one itself."""

    def all_of_them(hit: Hit) -> None:
        for each in sent:
            each(hit)

    return sent[0] if len(sent) == 1 else all_of_them
