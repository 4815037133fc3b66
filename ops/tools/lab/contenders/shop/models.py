"""The service's tables as unmanaged models, so that each Django contender reads the very same rows."""

from django.db import models


class Category(models.Model):
    slug = models.SlugField(unique=True)
    name = models.CharField(max_length=100)

    class Meta:
        managed = False
        db_table = "products_category"

    def __str__(self) -> str:
        return self.slug


class Product(models.Model):
    low_price = models.DecimalField(max_digits=7, decimal_places=2)
    high_price = models.DecimalField(max_digits=7, decimal_places=2)
    demand_qty = models.IntegerField()
    offers_qty = models.IntegerField()
    bought_qty = models.IntegerField()
    sold_qty = models.IntegerField()
    time_created = models.DateTimeField()
    category = models.ForeignKey(Category, on_delete=models.PROTECT, null=True)

    class Meta:
        managed = False
        db_table = "products_product"

    def __str__(self) -> str:
        return f"Product {self.pk}"
