"""The tables.

Rules that must always hold are constraints in the database, and each access path of the API has its index. Category
is there to give Product a join.
"""

import datetime
from decimal import Decimal

from django.db import models
from django.db.models import F, Q

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
        db_index=False,  # the index product_category_time serves it
    )

    objects = InvalidatingQuerySet.as_manager()

    class Meta:
        base_manager_name = "objects"
        ordering = ("time_created", "id")
        indexes = (
            models.Index(fields=("time_created", "id"), name="product_time"),
            models.Index(fields=("category", "time_created", "id"), name="product_category_time"),
            models.Index(fields=("low_price", "id"), name="product_low_price"),
            models.Index(fields=("high_price", "id"), name="product_high_price"),
        )
        constraints = (
            models.CheckConstraint(
                condition=Q(low_price__lte=F("high_price")),
                name="product_price_order",
                violation_error_code="low_above_high",
                violation_error_message="low_price may not be greater than high_price",
            ),
            # NaN of numeric is greater than all numbers. low_price cannot be NaN either: it is at most high_price.
            models.CheckConstraint(condition=Q(high_price__lte=MOST_PRICE), name="product_price_number"),
            # timestamptz has infinity and the years before 1 and after 9999, which RFC 3339 cannot spell.
            models.CheckConstraint(
                condition=Q(time_created__gte=EARLIEST, time_created__lte=LATEST),
                name="product_time_range",
                violation_error_code="out_of_range",
                violation_error_message="must be in the years 1 to 9999 in UTC",
            ),
            models.CheckConstraint(condition=Q(demand_qty__gte=0), name="product_demand_qty_positive"),
            models.CheckConstraint(condition=Q(offers_qty__gte=0), name="product_offers_qty_positive"),
            models.CheckConstraint(condition=Q(bought_qty__gte=0), name="product_bought_qty_positive"),
            models.CheckConstraint(condition=Q(sold_qty__gte=0), name="product_sold_qty_positive"),
        )

    def __str__(self) -> str:
        return f"Product {self.pk}"
