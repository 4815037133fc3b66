"""All that reads products: the listings with their access paths, the statistics, the prices of one product."""

from django.db.models import Avg, Count, Max, Min, Sum

from api import AccessPath, Export, Listing, One, Param, Stats, at_least, at_most, below, equals
from products.models import Category, Product
from products.schemas import CategoryDetail, CategoryOut, Prices, ProductOut, ProductStatsOut

PRODUCTS = Listing(
    "products",
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
    on_request=("category",),  # a join, which costs only the requests that ask for it
)
PRODUCT = PRODUCTS.one("product_id")
PRODUCT_STATS = Stats(
    PRODUCTS,
    ProductStatsOut,
    by=("category",),
    count=Count("*"),
    low_price_min=Min("low_price"),
    low_price_max=Max("low_price"),
    low_price_average=Avg("low_price"),
    high_price_min=Min("high_price"),
    high_price_max=Max("high_price"),
    high_price_average=Avg("high_price"),
    demand_qty_sum=Sum("demand_qty"),
    offers_qty_sum=Sum("offers_qty"),
    bought_qty_sum=Sum("bought_qty"),
    sold_qty_sum=Sum("sold_qty"),
    time_created_min=Min("time_created"),
    time_created_max=Max("time_created"),
)
PRODUCT_EXPORT = Export(PRODUCTS)

CATEGORIES = Listing("categories", Category.objects.all(), CategoryOut, AccessPath("slug"))
# A listing of its own. If CATEGORIES had products, too, each change of a product would drop its cached pages.
CATEGORY = Listing("category", Category.objects.all(), CategoryDetail, AccessPath("slug")).one("category_id")

PRICES = One(Product.objects.filter(pk=Param("id")), Prices)
