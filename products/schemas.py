"""What the API says of the models: the only author of the JSON's shape."""

from decimal import Decimal
from typing import Annotated

from ninja import Schema
from pydantic import Field

from api.types import Timestamp

Quantity = Annotated[int, Field(ge=0, examples=[12])]


class ProductOut(Schema):
    id: Annotated[int, Field(examples=[1])]
    low_price: Annotated[Decimal, Field(examples=["12.50"], max_digits=7, decimal_places=2)]
    high_price: Annotated[Decimal, Field(examples=["499.99"], max_digits=7, decimal_places=2)]
    demand_qty: Quantity
    offers_qty: Quantity
    bought_qty: Quantity
    sold_qty: Quantity
    time_created: Annotated[Timestamp, Field(examples=["2020-01-01T00:00:13.37+00:00"])]
    category: Annotated[str | None, Field(alias="category.slug", examples=["garden"])] = None


class CategoryOut(Schema):
    id: Annotated[int, Field(examples=[1])]
    slug: Annotated[str, Field(examples=["garden"])]
    name: Annotated[str, Field(examples=["Garden"])]
