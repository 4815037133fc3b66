"""What the API says of the models: the only author of the JSON's shape."""

import datetime
from decimal import Decimal
from typing import Annotated, Any

from ninja import Schema
from pydantic import Field

from api import Children, More, Timestamp, rounded

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


class ProductStatsOut(Schema):
    count: int
    low_price_min: Decimal | None
    low_price_average: Annotated[Decimal, rounded(2)] | None
    demand_qty_sum: int | None
    time_created_max: Timestamp | None


class CategoryOut(Schema):
    id: Annotated[int, Field(examples=[1])]
    slug: Annotated[str, Field(examples=["garden"])]
    name: Annotated[str, Field(examples=["Garden"])]


class VoucherOut(Schema):
    id: Annotated[int, Field(examples=[1])]
    code: Annotated[str, Field(examples=["spring-20"])]
    percent: Annotated[int, Field(ge=0, examples=[20])]
    kind: str
    note: str
    details: dict[str, Any] | None = None
    starts: datetime.date | None = None
    ends: datetime.date | None = None
    uses: int
    category: Annotated[str, Field(alias="category.slug", examples=["garden"])]
    partner_id: int | None = None
    created: Timestamp


class ProductInLine(Schema):
    id: Annotated[int, Field(examples=[1])]
    low_price: Annotated[Decimal, Field(examples=["12.50"], max_digits=7, decimal_places=2)]
    category: CategoryOut | None


class OrderLineOut(Schema):
    id: Annotated[int, Field(examples=[1])]
    order_id: Annotated[int, Field(examples=[1])]
    position: Annotated[int, Field(ge=0, examples=[1])]
    product_id: Annotated[int, Field(examples=[1])]
    product: ProductInLine
    quantity: Annotated[int, Field(examples=[2])]
    note: str


class LineInOrder(Schema):
    id: Annotated[int, Field(examples=[1])]
    position: Annotated[int, Field(ge=0, examples=[1])]
    product: ProductInLine
    quantity: Annotated[int, Field(examples=[2])]


class TagOut(Schema):
    slug: Annotated[str, Field(examples=["gift"])]


class VoucherInOrder(Schema):
    code: Annotated[str, Field(examples=["spring-20"])]
    percent: Annotated[int, Field(ge=0, examples=[20])]
    category: CategoryOut


class Payment(Schema):
    """Columns of the order itself."""

    amount: Annotated[Decimal, Field(alias="paid_amount", examples=["12.50"])]
    currency: Annotated[str, Field(alias="paid_currency", examples=["EUR"])]


class OrderOut(Schema):
    id: Annotated[int, Field(examples=[1])]
    number: Annotated[str, Field(examples=["2020-000001"])]
    title: Annotated[str, Field(examples=["Order 2020-000001"])]
    placed: Timestamp
    paid: Payment
    voucher: VoucherInOrder | None
    tags: Annotated[list[TagOut], Children(order_by="slug", limit=10)]
    lines: Annotated[list[LineInOrder], Children(order_by="position", limit=5)]
    lines_more: Annotated[bool, More("lines")] = False
