"""Models that invalidate cached answers when their rows change.

class Product(models.Model):
    ...
    objects = InvalidatingQuerySet.as_manager()

    class Meta:
        base_manager_name = "objects"  # related managers and on_delete=SET_NULL change rows through this one
"""

from collections.abc import Iterable
from typing import Any, TypeVar

from django.apps import apps
from django.db.models import Model, QuerySet
from django.db.models.signals import m2m_changed, post_delete, post_save

from api.cache.changes import invalidate
from api.cache.policy import lineage

Row = TypeVar("Row", bound=Model)


class InvalidatingQuerySet(QuerySet[Row]):
    """Invalidates in the methods that change rows without a signal; for other methods, `connect_signals` does."""

    def update(self, **kwargs: Any) -> int:
        changed = super().update(**kwargs)
        if changed:
            invalidate(self.model, using=self.db)
        return changed

    update.alters_data = True  # type: ignore[attr-defined]  # as Django's: templates may not call it

    def bulk_create(self, objs: Iterable[Row], *args: Any, **kwargs: Any) -> list[Row]:
        created = super().bulk_create(objs, *args, **kwargs)
        invalidate(self.model, using=self.db)
        return created


def is_invalidating(model: type[Model]) -> bool:
    """Whether changes of the model's rows invalidate, whichever manager makes them.

    Other models may share the tables of its rows: its concrete model if it is a proxy, its parents, their other
    children, and the proxies of all these. Their managers change its rows, too, so they are checked as well. The rows
    of a ManyToManyField without a `through` model count as changed only by the field's own managers: the model that
    has the field is checked in place of the automatic one.
    """
    owner: Any = model._meta.auto_created
    if owner:
        return is_invalidating(owner)
    tables = {*lineage(model)}
    return all(
        isinstance(manager.all(), InvalidatingQuerySet)
        for one in {model, *tables, *(one for one in apps.get_models() if tables & {*lineage(one)})}
        for manager in (*one._meta.managers, one._default_manager, one._base_manager)
    )


def connect_signals() -> None:
    """Listen to the signals of models with an InvalidatingQuerySet, and of models that share a table with one.

    Call it when all models are loaded.
    """
    announced = {
        concrete
        for one in apps.get_models()
        if isinstance(one._default_manager.all(), InvalidatingQuerySet)
        for concrete in lineage(one)
    }
    for model in apps.get_models():
        if announced & {*lineage(model)}:
            for signal in (post_save, post_delete):
                signal.connect(_row_changed, sender=model, dispatch_uid="api.cache")
            for field in model._meta.local_many_to_many:
                through: Any = field.remote_field.through
                if through._meta.auto_created:
                    m2m_changed.connect(_relation_changed, sender=through, dispatch_uid="api.cache")


def _row_changed(sender: type[Model], instance: Model, using: str, **_kwargs: Any) -> None:
    invalidate(sender, instance.pk, using=using)


def _relation_changed(
    sender: type[Model], action: str, using: str, *, instance: Model, model: type[Model], **kwargs: Any
) -> None:
    """Invalidate the relation and the rows at both ends, since an endpoint may depend only on one of these."""
    if action.startswith("post_"):
        invalidate(sender, using=using)
        invalidate(type(instance), instance.pk, using=using)
        keys: set[Any] | None = kwargs["pk_set"]
        if keys is None or keys:
            invalidate(model, *(keys or ()), using=using)
