"""How an endpoint's answers are cached: one decorator declares it.

    @cached(PRODUCTS, fresh=10, stale=60)                       # pages of a listing
    @cached(PRODUCTS.one("product_id"), fresh=10, stale=60)     # the row of the listing that the path names
    @cached("top", fresh=10, stale=60, depends_on=[Product], cost=2)  # anything else; this one is expensive
    @cached(PRODUCT_STATS, fresh=60, stale=86400)               # statistics, which no change of a row makes invalid

An endpoint without the decorator is never cached. An endpoint with it answers the canonical request: the path, and
the parameters that are in the entry's key. It sees neither the client's header fields nor other parameters, since its
answer is sent to all clients.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar
from urllib.parse import parse_qsl, urlencode

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db.models import Model
from django.db.models.sql import Query

from ops.telemetry.stopwatch import UNMATCHED

View = TypeVar("View", bound=Callable[..., Any])

MIN_COST_SECONDS = 0.001  # Redis counts the time of a lock in milliseconds
ANY = "*"  # in place of a primary key: any rows may have changed


@dataclass(frozen=True, slots=True)
class Dependency:
    """Rows that an answer depends on: all of a model, or the one with the primary key that a path parameter names."""

    model: type[Model]
    parameter: str = ""

    def tags(self, arguments: Mapping[str, Any]) -> Iterator[str]:
        """Yield the tags that a change of these rows publishes; `arguments` are the path's, by parameter.

        Raises ValidationError for an argument that is no primary key.
        """
        for model in lineage(self.model):
            is_row = self.parameter and has_key_of(self.model, model)
            yield from (tag(model, key) for key in ((arguments[self.parameter], ANY) if is_row else (None,)))


def one(model: type[Model], parameter: str) -> Dependency:
    """Return a dependency on the row of `model` with the primary key that the path parameter names."""
    return Dependency(model, parameter)


def lineage(model: type[Model]) -> Iterable[type[Model]]:
    """Return the models with a table that holds a part of each row of `model`: itself, and its parents.

    For a proxy, its concrete model takes its place.
    """
    related = (model, *model._meta.get_parent_list())
    return dict.fromkeys(one._meta.concrete_model or one for one in related)


def has_key_of(model: type[Model], parent: type[Model]) -> bool:
    """Whether a row has the same primary key in `model` as in the table of `parent`, a model of its lineage."""
    concrete: Any = model._meta.concrete_model
    if concrete is parent:
        return True
    link = concrete._meta.get_ancestor_link(parent)
    return bool(link and link is concrete._meta.pk) and has_key_of(link.related_model, parent)


def models_of(query: Query) -> list[type[Model]]:
    """Return the model of each table that a query reads, in joins and subqueries, too.

    If the query reads a table several times, its model comes as many times.
    """
    tables: Counter[str] = Counter()
    nodes: list[Any] = [query]
    while nodes:
        node = nodes.pop()
        if isinstance(node, Query):
            used = node.alias_refcount  # the uses of each alias: 0 for a join that is not needed after all
            joined = [join.table_name for alias, join in node.alias_map.items() if used[alias]]
            own = [node.model._meta.db_table] if node.model else []
            tables.update([*joined, *(table for table in own if table not in joined)])
            nodes += [*node.annotations.values(), node.where, *node.combined_queries]
        elif hasattr(node, "get_source_expressions"):
            nodes += node.get_source_expressions()
    models = [model for model in apps.get_models(include_auto_created=True) if not model._meta.proxy]
    return [model for model in models for _ in range(tables[model._meta.db_table])]


def tag(model: type[Model], key: Any = None) -> str:
    """Return the tag that each change of `model` publishes; with `key`, the tag of a change of that row, or of ANY.

    Raises ValidationError if `key` is no primary key of the model.
    """
    label = model._meta.label_lower
    if key is None:
        return label
    return f"{label}:{key if key == ANY else model._meta.pk.to_python(key)}"  # 7 and "007" are one row


class Uncacheable(Exception):
    """The request cannot be answered by an entry: the endpoint answers it itself."""


class Resource(Protocol):
    """The subject of a cached endpoint: a listing, a row of one, or an Endpoint."""

    @property
    def name(self) -> str:
        """The name of the subject in metrics."""

    @property
    def depends_on(self) -> Sequence[Dependency] | None:
        """The rows that an answer depends on; None if only its age makes it invalid."""

    @property
    def cost(self) -> float:
        """The longest time in seconds that an expensive answer takes; 0 if answers are cheap."""

    @property
    def parameters(self) -> Collection[str] | None:
        """The query parameters that an answer depends on; None until the endpoint's signature is known."""

    @property
    def form_digest(self) -> str:
        """A part of the keys of entries. It differs between releases with answers of different forms."""

    def canonical_query(self, query: str) -> str:
        """Return the query string that the endpoint gets: the same for all requests for the same answer.

        Raises Uncacheable or Problem for a query that the endpoint itself has to answer or refuse.
        """


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The subject of an endpoint that depends on these query parameters. It gets no others."""

    name: str
    depends_on: Sequence[Dependency] | None
    parameters: tuple[str, ...] | None = None
    cost: float = 0.0

    @property
    def form_digest(self) -> str:
        return ""

    def canonical_query(self, query: str) -> str:
        """Return the known parameters of the query, in a fixed order. Raises Uncacheable for one that comes twice."""
        known = self.parameters or ()
        pairs = [pair for pair in parse_qsl(query, keep_blank_values=True) if pair[0] in known]
        values = dict(pairs)
        if len(values) < len(pairs):
            raise Uncacheable("a parameter is given twice")
        return urlencode([(name, values[name]) for name in known if name in values])


@dataclass(frozen=True, eq=False, slots=True)
class Policy:
    """How answers are cached, with times in seconds.

    For `stale` seconds after `fresh`, an answer may be sent while a new one is computed (stale-while-revalidate, RFC
    5861), or because the computation fails (stale-if-error). With a `cost`, one worker at a time computes an answer,
    and the others wait for it, `cost` seconds at most; without a `cost`, each worker computes its own.

    An answer that depends on no row goes by its age alone: it is valid until its `stale` seconds are over. A request
    waits for such an answer only while there is none, PATIENCE_SECONDS at most (api/cache/lookup.py).
    """

    name: str
    resource: Resource
    fresh: float
    stale: float
    depends_on: tuple[Dependency, ...]
    cost: float = 0.0
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)  # by outcome and tier, since the start

    @property
    def goes_by_age(self) -> bool:
        """Whether only its age makes an answer invalid, since it depends on no row."""
        return not self.depends_on

    @property
    def cache_control(self) -> bytes:
        """Cache-Control for other caches (browsers, CDNs), which no invalidation reaches."""
        fresh, stale = int(self.fresh), int(self.stale)
        return b"public, max-age=%d, stale-while-revalidate=%d, stale-if-error=%d" % (fresh, stale, stale)

    def tags(self, arguments: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the tags of an answer, each once. Raises ValidationError for an argument that is no primary key."""
        return tuple(
            dict.fromkeys(name for dependency in self.depends_on for name in dependency.tags(arguments))
        )


class Target(NamedTuple):
    """Names the entry that a request asks for, by its key, and holds the canonical request."""

    policy: Policy
    key: str  # of the entry; it contains everything that the endpoint sees
    tags: tuple[str, ...]
    route: str = UNMATCHED  # the URL pattern, in metrics
    root_path: str = ""
    path: str = "/"  # below the root path
    query: str = ""
    scheme: str = "http"


def cached(
    resource: Resource | str,
    *,
    fresh: float,
    stale: float,
    name: str = "",
    depends_on: Iterable[Dependency | type[Model]] | None = (),
    parameters: Iterable[str] | None = None,
    cost: float = 0.0,
) -> Callable[[View], View]:
    """Cache the answers of an endpoint. `resource` is the listing that they show, a row of one, or any other name.

    Times are in seconds. `depends_on` are models, or `one(Model, "parameter")` for a single row, in addition to the
    models that the listing shows or filters by; None for an answer that goes by its age alone. `parameters` are the
    query parameters that a view reads by itself; those that its Ninja signature declares need not be named. A second
    endpoint of a listing needs a `name` of its own, which appears in metrics. An expensive answer, such as that of a
    scan, has a `cost`: the longest time that its computation takes. Raises ImproperlyConfigured for arguments that do
    not fit together.
    """
    dependencies = tuple(d if isinstance(d, Dependency) else Dependency(d) for d in depends_on or ())
    if isinstance(resource, str):
        names = None if parameters is None else tuple(parameters)
        resource = Endpoint(resource, None if depends_on is None else dependencies, names)
    elif parameters is not None:
        raise ImproperlyConfigured(f"{resource.name}: a listing has its own parameters.")
    name = name or resource.name
    own = resource.depends_on or ()
    cost = cost or resource.cost
    policy = Policy(name, resource, fresh, stale, tuple(dict.fromkeys((*own, *dependencies))), cost)
    if name in POLICIES:
        raise ImproperlyConfigured(f"Two endpoints are cached under the name {name!r}.")
    has_dependencies = policy.depends_on or resource.depends_on is None
    if not has_dependencies or fresh <= 0 or stale < 0:
        raise ImproperlyConfigured(
            f"{name}: a cached endpoint depends on something and is fresh for a while."
        )
    if not (cost == 0 or cost >= MIN_COST_SECONDS):
        raise ImproperlyConfigured(f"{name}: its cost is in seconds, {MIN_COST_SECONDS} at least, or 0.")
    POLICIES[name] = policy

    def mark(view: View) -> View:
        view.page_policy = policy  # type: ignore[attr-defined]
        return view

    return mark


# Every policy of the service by its name, for system checks and metrics.
POLICIES: dict[str, Policy] = {}


def policy_of(view: Callable[..., Any]) -> Policy | None:
    """Return the policy that an endpoint was decorated with, or None."""
    return getattr(view, "page_policy", None)
