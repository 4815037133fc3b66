"""All that reads products: the listings with their access paths.

A service's pages are imported beside these when a test is about its routes, and no two pages of a process have one
name. So all that the tests name begins with `tests.`, as no resource's name does.
"""

from django.db.models import Avg, Count, Max, Min, Sum, Value
from django.db.models.functions import Concat

from api import AccessPath, Export, Listing, Stats, at_least, at_most, below, equals
from tests.shop.models import Category, Order, OrderLine, Product, Voucher
from tests.shop.schemas import CategoryOut, OrderLineOut, OrderOut, ProductOut, ProductStatsOut, VoucherOut

PRODUCTS = Listing(
    "tests.products",
    Product.objects.all(),
    ProductOut,
    AccessPath(
        "time_created",
        created_after=at_least(),
        created_before=below(),
        category=equals(by="slug"),
    ),
    AccessPath("low_price", low_price_min=at_least(), low_price_max=at_most()),
    AccessPath("high_price", high_price_min=at_least(), high_price_max=at_most()),
    AccessPath("id"),
    on_request=("category",),  # a join: it costs only those who ask for it
)
PRODUCT = PRODUCTS.one("product_id")
PRODUCT_STATS = Stats(
    PRODUCTS,
    ProductStatsOut,
    by=("category",),
    count=Count("*"),
    low_price_min=Min("low_price"),
    low_price_average=Avg("low_price"),
    demand_qty_sum=Sum("demand_qty"),
    time_created_max=Max("time_created"),
)
PRODUCT_EXPORT = Export(PRODUCTS)

CATEGORIES = Listing("tests.categories", Category.objects.all(), CategoryOut, AccessPath("slug"))
CATEGORY = CATEGORIES.one("category_id")

VOUCHERS = Listing("tests.vouchers", Voucher.objects.all(), VoucherOut, AccessPath("id"))
VOUCHER = VOUCHERS.one("voucher_id")

ORDERS = Listing(
    "tests.orders",
    Order.objects.annotate(title=Concat(Value("Order "), "number")),
    OrderOut,
    AccessPath("id"),
)
ORDER = ORDERS.one("order_id")

ORDER_LINES = Listing(
    "tests.order-lines", OrderLine.objects.all(), OrderLineOut, AccessPath("id", order=equals(by="id"))
)
ORDER_LINE = ORDER_LINES.one("line_id")
VOUCHER_EXPORT = Export(VOUCHERS)
