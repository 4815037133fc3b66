"""The JSON of the models: the schemas alone define its shape."""

import datetime
from decimal import Decimal
from typing import Annotated, Literal

from ninja import Schema
from pydantic import Field

from api import Children, Timestamp, rounded

Quantity = Annotated[int, Field(ge=0, examples=[12])]


class ProductOut(Schema):
    id: Annotated[int, Field(examples=[1])]
    low_price: Annotated[Decimal, Field(examples=["12.50"], max_digits=7, decimal_places=2)]
    high_price: Annotated[Decimal, Field(examples=["499.99"], max_digits=7, decimal_places=2)]
    demand_qty: Quantity
    offers_qty: Quantity
    bought_qty: Quantity
    sold_qty: Quantity
    time_created: Annotated[Timestamp, Field(examples=["2020-01-01T00:00:13.370000+00:00"])]
    category: Annotated[str | None, Field(alias="category.slug", examples=["garden"])] = None


Sum = Annotated[int | None, Field(examples=[4870000])]
Price = Annotated[Decimal | None, Field(examples=["499.99"])]
Average = Annotated[Annotated[Decimal, rounded(2)] | None, Field(examples=["249.98"])]


class ProductStatsOut(Schema):
    """Statistics of products; where there are none, all but `count` are null."""

    count: Annotated[int, Field(ge=0, examples=[10000])]
    low_price_min: Price
    low_price_max: Price
    low_price_average: Average
    high_price_min: Price
    high_price_max: Price
    high_price_average: Average
    demand_qty_sum: Sum
    offers_qty_sum: Sum
    bought_qty_sum: Sum
    sold_qty_sum: Sum
    time_created_min: Timestamp | None
    time_created_max: Timestamp | None


class CategoryOut(Schema):
    id: Annotated[int, Field(examples=[1])]
    slug: Annotated[str, Field(examples=["garden"])]
    name: Annotated[str, Field(examples=["Garden"])]


class ProductInCategory(Schema):
    id: Annotated[int, Field(examples=[1])]
    low_price: Annotated[Decimal, Field(examples=["12.50"], max_digits=7, decimal_places=2)]
    high_price: Annotated[Decimal, Field(examples=["499.99"], max_digits=7, decimal_places=2)]
    sold_qty: Quantity


class CategoryDetail(CategoryOut):
    newest: Annotated[
        list[ProductInCategory], Field(alias="products"), Children(order_by="-time_created", limit=20)
    ]


class Prices(Schema):
    low_price: Annotated[Decimal, Field(max_digits=7, decimal_places=2)]
    high_price: Annotated[Decimal, Field(max_digits=7, decimal_places=2)]


BASE = "USD"  # the currency of all prices

Currency = Annotated[str, Field(pattern="^[A-Z]{3}$", description="A code of ISO 4217.", examples=["EUR"])]
Rate = Annotated[Decimal, Field(gt=0, lt=10**9, max_digits=30, allow_inf_nan=False)]


class Rates(Schema):
    """The content of RATES_URL: the price of one US dollar in other currencies."""

    base: Literal["USD"]
    date: datetime.date
    rates: Annotated[dict[Currency, Rate], Field(min_length=1, max_length=200)]


class QuoteOut(Schema):
    id: Annotated[int, Field(examples=[1])]
    currency: Currency
    low_price: Annotated[Decimal, Field(examples=["11.56"])]
    high_price: Annotated[Decimal, Field(examples=["462.24"])]
    rate: Annotated[Decimal, Field(examples=["0.9245"], description="The price of one US dollar.")]
    as_of: Annotated[datetime.date, Field(description="The day of the rate.")]
    rates_age_seconds: Annotated[int, Field(ge=0, description="Since the rates were fetched.")]
    stale: Annotated[
        bool, Field(description="The rates could not be renewed in time: these are the last known.")
    ]
