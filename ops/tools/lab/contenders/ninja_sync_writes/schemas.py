"""The contents that the writes of stock Ninja take, and the check of their API key."""

from decimal import Decimal
from typing import Annotated

from django.http import HttpRequest
from ninja import Schema
from ninja.security import APIKeyHeader
from pydantic import AwareDatetime, Field

from ops.tools.lab.contenders.shop.keys import client_of

Price = Annotated[Decimal, Field(max_digits=7, decimal_places=2)]
Quantity = Annotated[int, Field(ge=0, le=2**31 - 1)]
Slug = Annotated[str, Field(min_length=1, max_length=50)]


class ProductReplacement(Schema):
    low_price: Price
    high_price: Price
    demand_qty: Quantity
    offers_qty: Quantity
    bought_qty: Quantity
    sold_qty: Quantity
    time_created: AwareDatetime
    category: Slug | None


class ProductCreation(ProductReplacement):
    time_created: AwareDatetime | None = None
    category: Slug | None = None


class ApiKey(APIKeyHeader):
    param_name = "X-API-Key"

    def authenticate(self, request: HttpRequest, key: str | None):
        return client_of(key or "")
