"""The tables.

What must always hold is a constraint in the database, and each access path of the API has its index. The seven
fields of Product are those of the benchmark that this project started from; Category gives it a join.
"""

import datetime
from decimal import Decimal

from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import RangeOperators
from django.db import models
from django.db.models import F, Func, Q

from api import InvalidatingQuerySet

MOST_PRICE = Decimal("99999.99")
EARLIEST = datetime.datetime.min.replace(tzinfo=datetime.UTC)
LATEST = datetime.datetime.max.replace(tzinfo=datetime.UTC)


class Category(models.Model):
    slug = models.SlugField(max_length=50, unique=True)
    name = models.CharField(max_length=100)

    objects = InvalidatingQuerySet.as_manager()

    class Meta:
        base_manager_name = "objects"
        verbose_name_plural = "categories"

    def __str__(self) -> str:
        return self.name


class Product(models.Model):
    low_price = models.DecimalField(max_digits=7, decimal_places=2)
    high_price = models.DecimalField(max_digits=7, decimal_places=2)
    demand_qty = models.IntegerField()
    offers_qty = models.IntegerField()
    bought_qty = models.IntegerField()
    sold_qty = models.IntegerField()
    time_created = models.DateTimeField()
    category = models.ForeignKey(
        Category,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="products",
        db_index=False,  # shop_category_time serves it
    )

    objects = InvalidatingQuerySet.as_manager()

    class Meta:
        base_manager_name = "objects"
        ordering = ("time_created", "id")
        indexes = (
            models.Index(fields=("time_created", "id"), name="shop_time"),
            models.Index(fields=("category", "time_created", "id"), name="shop_category_time"),
            models.Index(fields=("low_price", "id"), name="shop_low_price"),
            models.Index(fields=("high_price", "id"), name="shop_high_price"),
        )
        constraints = (
            models.CheckConstraint(condition=Q(low_price__lte=F("high_price")), name="shop_price_order"),
            # numeric has NaN, which is greater than all numbers; low_price cannot be greater than high_price.
            models.CheckConstraint(condition=Q(high_price__lte=MOST_PRICE), name="shop_price_number"),
            # timestamptz has infinity and the years before 1 and after 9999, which RFC 3339 cannot spell.
            models.CheckConstraint(
                condition=Q(time_created__gte=EARLIEST, time_created__lte=LATEST), name="shop_time_range"
            ),
            models.CheckConstraint(condition=Q(demand_qty__gte=0), name="shop_demand_qty_positive"),
            models.CheckConstraint(condition=Q(offers_qty__gte=0), name="shop_offers_qty_positive"),
            models.CheckConstraint(condition=Q(bought_qty__gte=0), name="shop_bought_qty_positive"),
            models.CheckConstraint(condition=Q(sold_qty__gte=0), name="shop_sold_qty_positive"),
        )

    def __str__(self) -> str:
        return f"Product {self.pk}"


class Voucher(models.Model):
    """For tests of writes: a rule of every kind, and values of most."""

    code = models.SlugField(max_length=20, unique=True)
    percent = models.PositiveSmallIntegerField()
    kind = models.CharField(max_length=10, choices=[("gift", "Gift"), ("sale", "Sale")], default="sale")
    note = models.TextField(blank=True, default="")
    details = models.JSONField(null=True, blank=True)
    starts = models.DateField(null=True, blank=True)
    ends = models.DateField(null=True, blank=True)
    uses = models.IntegerField(default=0)
    category = models.ForeignKey(Category, on_delete=models.PROTECT, related_name="vouchers")
    partner = models.ForeignKey(
        Category, on_delete=models.PROTECT, null=True, blank=True, related_name="partners"
    )
    created = models.DateTimeField(auto_now_add=True)

    objects = InvalidatingQuerySet.as_manager()

    class Meta:
        base_manager_name = "objects"
        constraints = (
            models.UniqueConstraint(fields=("category", "percent"), name="shop_voucher_percent"),
            models.CheckConstraint(
                condition=Q(starts__lte=F("ends")),
                name="shop_voucher_order",
                violation_error_code="backwards",
                violation_error_message="starts before it ends",
            ),
            ExclusionConstraint(
                name="shop_voucher_alone",
                expressions=[
                    (
                        Func("starts", "ends", function="daterange", output_field=models.Field()),
                        RangeOperators.OVERLAPS,
                    )
                ],
                condition=Q(kind="gift"),
            ),
        )

    def __str__(self) -> str:
        return self.code


class Tag(models.Model):
    slug = models.CharField(max_length=50, unique=True)
    parent = models.ForeignKey(
        "self", on_delete=models.PROTECT, null=True, blank=True, related_name="children"
    )

    objects = InvalidatingQuerySet.as_manager()

    class Meta:
        base_manager_name = "objects"

    def __str__(self) -> str:
        return self.slug


class Order(models.Model):
    """For tests of objects and lists: a relation of every kind, and columns that make a group."""

    number = models.CharField(max_length=20, unique=True)
    placed = models.DateTimeField()
    paid_amount = models.DecimalField(max_digits=9, decimal_places=2, default=Decimal(0))
    paid_currency = models.CharField(max_length=3, default="EUR")
    voucher = models.ForeignKey(
        Voucher, on_delete=models.PROTECT, null=True, blank=True, related_name="orders"
    )
    tags = models.ManyToManyField(Tag, related_name="orders")

    objects = InvalidatingQuerySet.as_manager()

    class Meta:
        base_manager_name = "objects"

    def __str__(self) -> str:
        return self.number


class OrderLine(models.Model):
    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="lines", db_index=False)
    position = models.PositiveSmallIntegerField()
    product = models.ForeignKey(Product, on_delete=models.PROTECT, related_name="order_lines")
    quantity = models.IntegerField(default=1)
    note = models.TextField(blank=True, default="")

    objects = InvalidatingQuerySet.as_manager()

    class Meta:
        base_manager_name = "objects"
        indexes = (models.Index(fields=("order", "id"), name="shop_line_order"),)
        constraints = (models.UniqueConstraint(fields=("order", "position"), name="shop_line_position"),)

    def __str__(self) -> str:
        return f"{self.order_id}/{self.position}"
