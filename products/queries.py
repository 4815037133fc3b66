"""Everything that reads products: the listings with their access paths, and one function a question."""

from functools import lru_cache

from api.access import AccessPath, at_least, at_most, below, equals
from api.listing import Listing
from ops.postgres.compiled import One
from ops.postgres.statement import Param
from products.models import Category, Product
from products.schemas import CategoryOut, ProductOut

PRODUCTS = Listing(
    "products",
    Product.objects.all(),
    ProductOut,
    AccessPath(
        "time_created",
        created_after=at_least(),
        created_before=below(),
        category=equals("category", by="slug"),
    ),
    AccessPath("low_price", low_price_min=at_least(), low_price_max=at_most()),
    AccessPath("high_price", high_price_min=at_least(), high_price_max=at_most()),
    AccessPath("id"),
    on_request=("category",),  # a join: it costs only those who ask for it
)

CATEGORIES = Listing("categories", Category.objects.all(), CategoryOut, AccessPath("slug"))


@lru_cache(maxsize=256)  # there are 511 choices of fields; most clients make the same few
def _product(fields: tuple[str, ...]) -> One:
    return One(Product.objects.filter(pk=Param("id")), ProductOut, fields)


async def get_product(product_id: int, fields: tuple[str, ...]) -> bytes | None:
    """The product's `fields` as JSON, or None where there is no such product."""
    return await _product(fields)(id=product_id)
