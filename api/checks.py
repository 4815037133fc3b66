"""System checks: each access path has its index, each cached answer is invalidated, each resource documented."""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error
from django.core.checks import Warning as CheckWarning
from django.db.models import CharField, Index, Model, TextField, UniqueConstraint
from django.urls import get_resolver

from api.auth import authenticator
from api.cache.policy import POLICIES, policy_of
from api.cache.querysets import is_invalidating
from api.reads.access import AccessPath, field_of
from api.reads.cursors import MAX_KEY_CHARACTERS
from api.reads.listing import LISTINGS, Item, Listing
from api.reads.stats import Stats
from ops.checks import views
from ops.postgres.json_sql import target_of


def check_listings(app_configs: Sequence[AppConfig] | None = None, **_kwargs: Any) -> list[CheckMessage]:
    """Check every listing of the URL configuration."""
    _ = get_resolver().url_patterns  # imports the modules that declare listings
    return [
        message
        for listing in LISTINGS
        if app_configs is None or listing.model._meta.app_config in app_configs
        for message in chain(*(check_path(listing, path) for path in listing.paths), check_lists(listing))
    ]


def check_policies(app_configs: Sequence[AppConfig] | None = None, **_kwargs: Any) -> list[CheckMessage]:
    """Check that the models that cached answers depend on announce their changes."""
    _ = get_resolver().url_patterns
    return [
        Error(
            f"Answers of {policy.name!r} are cached and depend on {model.__name__}, whose changes nobody announces.",
            hint=f"Let {model.__name__} have objects = InvalidatingQuerySet.as_manager(), and base_manager_name = "
            '"objects" in its Meta, and so each of its parents, children and proxies, and what it is a proxy of.',
            obj=model,
            id="api.E005",
        )
        for policy in POLICIES.values()
        for model in {dependency.model for dependency in policy.depends_on}
        if not is_invalidating(model) and (app_configs is None or model._meta.app_config in app_configs)
    ]


DESCRIBE: dict[type, str] = {Listing: "describe_list", Item: "describe_item", Stats: "describe_stats"}


def check_documentation(**_kwargs: Any) -> list[CheckMessage]:
    """Check that the OpenAPI document has the parameters of each cached listing, row of a listing, and statistics.

    Other endpoints are not checked: without @cached, an endpoint does not tell which listing it answers.
    """
    found: list[CheckMessage] = []
    for route, operation in views.operations():
        policy = policy_of(operation.view_func)
        if policy and isinstance(resource := policy.resource, Listing | Item | Stats):
            documented = {each["name"] for each in (operation.openapi_extra or {}).get("parameters", ())}
            for model in operation.models:  # its parameters from the signature
                documented |= {*getattr(model, "__ninja_flatten_map__", ())}
            missing = {*resource.parameters} - documented
            if missing:
                describe = DESCRIBE[type(resource)]
                found.append(
                    CheckWarning(
                        f"The OpenAPI document lacks {', '.join(sorted(missing))} of {route!r}, which answers "
                        f"{policy.name!r}.",
                        hint=f"Give the route **{describe}(...) of the listing.",
                        id="api.W006",
                    )
                )
    return found


def check_authenticate(**_kwargs: Any) -> list[CheckMessage]:
    """Check that settings.AUTHENTICATE names a coroutine function."""
    try:
        found = authenticator(settings.AUTHENTICATE)
    except ImportError as error:
        said = str(error)
    else:
        said = "" if iscoroutinefunction(found) else "It is no coroutine function."
    if not said:
        return []
    return [
        Error(
            f"AUTHENTICATE is {settings.AUTHENTICATE!r}, which cannot be used: {said}",
            hint="Name an `async def` that takes a credential and returns an Identity or None (docs/auth.md).",
            id="api.E006",
        )
    ]


def check_path(listing: Listing, path: AccessPath) -> Iterator[CheckMessage]:
    """Yield an error for each index that the access path lacks, and for each field that it cannot use."""
    model, name = listing.model, f"{listing.name!r} sorted by {path.sort!r}"
    if field_of(model, path.sort).null:
        yield Error(
            f"The access path of {name} has a sort key that may be null.",
            hint="A keyset page compares sort keys, and null compares with nothing. Make the field NOT NULL.",
            obj=model,
            id="api.E001",
        )
    for part in path.key(model):
        field = target_of(field_of(model, part))
        if (
            isinstance(field, CharField | TextField)
            and (field.max_length or MAX_KEY_CHARACTERS + 1) > MAX_KEY_CHARACTERS
        ):
            yield Error(
                f"The access path of {name} has a text of more than {MAX_KEY_CHARACTERS} characters in its key, "
                f"{part!r}.",
                hint=f"A cursor holds the key. Give the field a max_length of at most {MAX_KEY_CHARACTERS}.",
                obj=model,
                id="api.E004",
            )
    for filter_name, wanted in path.filters.items():
        if wanted.by and not path.field(model, filter_name).unique:
            yield Error(
                f"The filter {filter_name!r} of {name} finds its row by {wanted.by!r}, which is not unique.",
                hint=f"Name a unique field of {wanted.column}.",
                obj=model,
                id="api.E002",
            )
    present = [*_indexes(model)]
    for columns in path.indexes(model):
        if not any(index[: len(columns)] == columns for index in present):
            yield Error(
                f"The access path of {name} has no index that begins with ({', '.join(columns)}).",
                hint=f"Add models.Index(fields={columns!r}) to {model.__name__}.Meta.indexes, or offer less.",
                obj=model,
                id="api.E003",
            )


def check_lists(listing: Listing) -> Iterator[CheckMessage]:
    """Yield an error for each list of related rows that has no index by which it is found."""
    for name, model, field in listing.json.contents.lists:
        if not any(index[:1] == (field,) for index in _indexes(model)):
            yield Error(
                f"{name} of {listing.name!r} lists rows of {model.__name__} by {field!r}, which has no index.",
                hint=f"Add an index on {field}, then the order of the list, to {model.__name__}.Meta.indexes.",
                obj=model,
                id="api.E007",
            )


def _indexes(model: type[Model]) -> Iterator[tuple[str, ...]]:
    """Yield the columns of each B-tree index that covers all rows in one direction, unless it has expressions."""
    for field in model._meta.concrete_fields:
        if field.unique or getattr(field, "db_index", False):
            yield (field.name,)
    for index in model._meta.indexes:
        ascending = {order == "" for _, order in index.fields_orders}
        if type(index) is Index and index.condition is None and len(ascending) == 1:
            yield tuple(name for name, _ in index.fields_orders)
    for constraint in model._meta.constraints:
        if isinstance(constraint, UniqueConstraint) and constraint.condition is None:
            yield tuple(constraint.fields)
    yield from map(tuple, model._meta.unique_together)
