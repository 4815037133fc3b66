# ruff: noqa: DJ001, DJ008, PLC2401  # no models for people
"""Models of the tests' own: one with a field of every kind, and odd ones. Their tables live for one test."""

from decimal import Decimal
from typing import Any, ClassVar

from django.contrib.postgres.fields import ArrayField, DateRangeField
from django.db import models
from django.db.models import F


class Colour(models.TextChoices):
    RED = "red"
    BLUE = "bl'ue\\"


class Grade(models.IntegerChoices):
    LOW = -1
    HIGH = 7


class Percent(models.DecimalField):  # type: ignore[type-arg]
    """Stored as a share, read as hundredths."""

    def from_db_value(self, value: Decimal, *_: Any) -> Decimal:
        return 100 * value


class Shouted(models.TextField):  # type: ignore[type-arg]
    """Stored as it is, read in capitals."""

    def from_db_value(self, value: str, *_: Any) -> str:
        return value.upper()


class Spelled(models.Model):
    """Of an app that is not installed."""

    objects: ClassVar["models.Manager[Any]"] = models.Manager()

    class Meta:
        app_label = "spelled"
        abstract = True


class Label(Spelled):
    key = models.CharField(max_length=50, primary_key=True)
    rank = models.IntegerField()
    parent = models.ForeignKey("self", on_delete=models.CASCADE, null=True)

    class Meta:
        app_label = "spelled"


class Sticker(Label):
    """Its primary key is a foreign key."""

    class Meta:
        app_label = "spelled"


class Badge(Spelled):
    """Its primary key is a relation, and no parent's."""

    label = models.OneToOneField(Label, on_delete=models.CASCADE, primary_key=True)
    rank = models.IntegerField()

    class Meta:
        app_label = "spelled"
        indexes = (models.Index(fields=("rank", "label"), name="spelled_badge_rank"),)


class Loose(Spelled):
    """Its foreign keys may name rows that there are not."""

    label = models.ForeignKey(
        Label, on_delete=models.DO_NOTHING, null=True, db_constraint=False, related_name="+"
    )
    own = models.ForeignKey("self", on_delete=models.DO_NOTHING, db_constraint=False, related_name="+")

    class Meta:
        app_label = "spelled"


class Holding(Spelled):
    holding = models.ForeignKey(Loose, on_delete=models.CASCADE, null=True)

    class Meta:
        app_label = "spelled"


class Topic(Spelled):
    slug = models.SlugField(primary_key=True, allow_unicode=True)

    class Meta:
        app_label = "spelled"


class Narrow(Spelled):
    id = models.SmallAutoField(primary_key=True)

    class Meta:
        app_label = "spelled"


class Everything(Spelled):
    text = models.TextField(null=True)
    char = models.CharField(max_length=200, default="")
    slug = models.SlugField(default="")
    email = models.EmailField(default="")
    url = models.URLField(default="")
    colour = models.CharField(max_length=9, choices=Colour, default=Colour.RED)
    grade = models.SmallIntegerField(choices=Grade, default=Grade.LOW)
    small = models.SmallIntegerField(default=0)
    integer = models.IntegerField(null=True)
    big = models.BigIntegerField(default=0)
    positive_small = models.PositiveSmallIntegerField(default=0)
    positive = models.PositiveIntegerField(default=0)
    positive_big = models.PositiveBigIntegerField(default=0)
    yes = models.BooleanField(default=False)
    maybe = models.BooleanField(null=True)
    float = models.FloatField(null=True)
    price = models.DecimalField(max_digits=7, decimal_places=2, null=True)
    whole = models.DecimalField(max_digits=30, decimal_places=0, default=0)
    fine = models.DecimalField(max_digits=40, decimal_places=6, default=0)
    finer = models.DecimalField(max_digits=40, decimal_places=20, default=0)
    uuid = models.UUIDField(null=True)
    address = models.GenericIPAddressField(null=True)
    date = models.DateField(null=True)
    moment = models.DateTimeField(null=True)
    time = models.TimeField(null=True)
    duration = models.DurationField(null=True)
    document = models.JSONField(null=True)
    texts = ArrayField(models.TextField(null=True), null=True)
    label = models.ForeignKey(Label, on_delete=models.CASCADE, null=True)
    sticker = models.ForeignKey(Sticker, on_delete=models.CASCADE, null=True, related_name="stuck")
    labels = models.ManyToManyField(Label, related_name="many")
    doubled = models.GeneratedField(
        expression=F("price") * Decimal(2),
        output_field=models.DecimalField(max_digits=9, decimal_places=2),
        db_persist=True,
    )
    binary = models.BinaryField(default=b"")
    file = models.FileField(default="")
    dates_range = DateRangeField(null=True)
    shouted = Shouted(default="")
    percent = Percent(max_digits=5, decimal_places=4, default=0)
    finest = models.DecimalField(max_digits=60, decimal_places=40, default=0)

    class Meta:
        app_label = "spelled"


class Odd(Spelled):
    """Names that need quoting: in SQL as columns, in JSON as keys, and one that Django's placeholders would read."""

    größe = models.IntegerField(default=1)
    user = models.TextField(default="it's", db_column="user")
    quoted = models.TextField(default="'{}' %s $1 :x", db_column="a 'b' {} :x")

    class Meta:
        app_label = "spelled"
        db_table = "odd 'table'"


TABLES = (Label, Sticker, Badge, Loose, Holding, Topic, Narrow, Everything, Odd)
