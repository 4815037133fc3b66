"""System checks: no access path without the index that makes it fast, no cached answer that nobody invalidates."""

from collections.abc import Iterator, Sequence
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Error
from django.db.models import CharField, Index, Model, TextField, UniqueConstraint
from django.urls import get_resolver

from api.access import AccessPath, field_of
from api.cache.policy import POLICIES
from api.cache.querysets import announces
from api.cursors import MOST_KEY_TEXT
from api.listing import LISTINGS, Listing


def check_listings(app_configs: Sequence[AppConfig] | None = None, **_kwargs: Any) -> list[CheckMessage]:
    """Check every listing of the URL configuration."""
    _ = get_resolver().url_patterns  # imports all that declare one
    return [
        message
        for listing in LISTINGS
        if app_configs is None or listing.model._meta.app_config in app_configs
        for path in listing.paths
        for message in check_path(listing, path)
    ]


def check_policies(app_configs: Sequence[AppConfig] | None = None, **_kwargs: Any) -> list[CheckMessage]:
    """Check that what cached answers depend on says when it changes."""
    _ = get_resolver().url_patterns
    return [
        Error(
            f"Answers of {policy.name!r} are cached and depend on {model.__name__}, whose changes nobody announces.",
            hint=f"Let {model.__name__} have objects = InvalidatingQuerySet.as_manager(), "
            'and base_manager_name = "objects" in its Meta.',
            obj=model,
            id="api.E005",
        )
        for policy in POLICIES.values()
        for model in {dependency.model for dependency in policy.depends_on}
        if not announces(model) and (app_configs is None or model._meta.app_config in app_configs)
    ]


def check_path(listing: Listing, path: AccessPath) -> Iterator[CheckMessage]:
    model, name = listing.model, f"{listing.name!r} sorted by {path.sort!r}"
    if field_of(model, path.sort).null:
        yield Error(
            f"The access path of {name} has a sort key that may be null.",
            hint="A keyset page compares sort keys, and null compares with nothing. Make the field NOT NULL.",
            obj=model,
            id="api.E001",
        )
    sort = field_of(model, path.sort)
    if isinstance(sort, CharField | TextField) and (sort.max_length or MOST_KEY_TEXT + 1) > MOST_KEY_TEXT:
        yield Error(
            f"The access path of {name} has a text sort key of more than {MOST_KEY_TEXT} characters.",
            hint=f"A cursor holds the key. Give the field a max_length of at most {MOST_KEY_TEXT}.",
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


def _indexes(model: type[Model]) -> Iterator[tuple[str, ...]]:
    """The columns of each B-tree index that covers all rows in one direction."""
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
