"""Models that say themselves when their rows change.

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
from django.db.models.signals import post_delete, post_save

from api.cache.changes import invalidate

Row = TypeVar("Row", bound=Model)


class InvalidatingQuerySet(QuerySet[Row]):
    """Its methods that change rows without a signal invalidate what depends on them; the others have the signals."""

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


def announces(model: type[Model]) -> bool:
    """Whether the model says when its rows change, whichever of its managers changes them."""
    managers = model._default_manager, model._base_manager
    return all(isinstance(manager.all(), InvalidatingQuerySet) for manager in managers)


def connect() -> None:
    """Listen to the signals of these models, once all of them are loaded."""
    for model in apps.get_models():
        if isinstance(model._default_manager.all(), InvalidatingQuerySet):
            for signal in (post_save, post_delete):
                signal.connect(_row_changed, sender=model, dispatch_uid="api.cache")


def _row_changed(sender: type[Model], instance: Model, using: str, **_kwargs: Any) -> None:
    invalidate(sender, instance.pk, using=using)
