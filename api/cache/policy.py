"""How an endpoint's answers are cached: one decorator says it all.

    @router.get("/products/{id:product_id}", ...)
    @cached("product", key=PRODUCTS.spell_fields, fresh=10, stale=60, depends_on=[one(Product, "product_id")])
    async def get_product(request, product_id): ...

An endpoint without it is never cached. One with it is a function of its path and its parameters alone: it is called
without the client's header fields, since its answer is everybody's.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote

from django.core.exceptions import ImproperlyConfigured
from django.db.models import Model

View = TypeVar("View", bound=Callable[..., Any])

ANY = "*"  # in the place of a primary key: rows that nobody named have changed


@dataclass(frozen=True, slots=True)
class Dependency:
    """What must not have changed: any row of a model, or the one whose primary key a path parameter names."""

    model: type[Model]
    parameter: str = ""

    def tags(self, arguments: Mapping[str, Any]) -> Iterator[str]:
        """Raises ValidationError for an argument that is no primary key."""
        keys = (arguments[self.parameter], ANY) if self.parameter else (None,)
        for model in lineage(self.model):
            yield from (tag(model, key) for key in keys)


def one(model: type[Model], parameter: str) -> Dependency:
    """The row of `model` whose primary key the path parameter names."""
    return Dependency(model, parameter)


def lineage(model: type[Model]) -> Iterable[type[Model]]:
    """The models whose tables hold a model's rows: itself, or what it is a proxy of, and those it inherits from."""
    related = (model, *model._meta.get_parent_list())
    return dict.fromkeys(one._meta.concrete_model or one for one in related)


def tag(model: type[Model], key: Any = None) -> str:
    """The name under which a change of the model, or of its row `key`, is announced. Raises ValidationError."""
    label = model._meta.label_lower
    if key is None:
        return label
    return f"{label}:{key if key == ANY else model._meta.pk.to_python(key)}"  # 7 and "007" are one row


@dataclass(frozen=True, eq=False, slots=True)
class Policy:
    """How answers are cached, with times in seconds.

    For `stale` seconds after `fresh`, an answer may be sent while a new one is made, or because none can be made.
    """

    name: str
    key: Callable[[str], str]  # a query string in its one spelling; raises Problem for what is none
    fresh: float
    stale: float
    depends_on: tuple[Dependency, ...]
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)  # by outcome and tier, since the start

    @property
    def cache_control(self) -> bytes:
        """For the caches of others, which nobody tells of changes."""
        fresh, stale = int(self.fresh), int(self.stale)
        return b"public, max-age=%d, stale-while-revalidate=%d, stale-if-error=%d" % (fresh, stale, stale)

    def entry(self, arguments: Mapping[str, Any], query: str) -> str:
        """The key of the entry that the path's `arguments` and the query ask for, in its one spelling."""
        path = "/".join([self.name, *(quote(str(value), safe="") for value in arguments.values())])
        return f"{path}?{self.key(query)}"

    def fits(self, parameters: Collection[str]) -> None:
        """Raises ImproperlyConfigured if the policy needs another path parameter than these."""
        for dependency in self.depends_on:
            if dependency.parameter and dependency.parameter not in parameters:
                raise ImproperlyConfigured(
                    f"{self.name} depends on a row named by {dependency.parameter!r}, which its path lacks."
                )

    def tags(self, arguments: Mapping[str, Any]) -> tuple[str, ...]:
        """What its answer depends on, each once. Raises ValidationError for an argument that is no primary key."""
        return tuple(
            dict.fromkeys(name for dependency in self.depends_on for name in dependency.tags(arguments))
        )


def cached(
    name: str,
    *,
    key: Callable[[str], str],
    fresh: float,
    stale: float,
    depends_on: Sequence[Dependency | type[Model]],
) -> Callable[[View], View]:
    """Cache the answers of an endpoint. `name` is unique; it appears in metrics and in Redis."""
    dependencies = tuple(d if isinstance(d, Dependency) else Dependency(d) for d in depends_on)
    policy = Policy(name, key, fresh, stale, dependencies)
    if name in POLICIES:
        raise ImproperlyConfigured(f"Two endpoints are cached under the name {name!r}.")
    if not dependencies or fresh <= 0 or stale < 0:
        raise ImproperlyConfigured(
            f"{name}: a cached endpoint depends on something and is fresh for a while."
        )
    POLICIES[name] = policy

    def mark(view: View) -> View:
        view.page_policy = policy  # type: ignore[attr-defined]
        return view

    return mark


# Every policy of the service by its name, for system checks and metrics.
POLICIES: dict[str, Policy] = {}


def policy_of(view: Callable[..., Any]) -> Policy | None:
    """The policy that an endpoint was decorated with."""
    return getattr(view, "page_policy", None)
