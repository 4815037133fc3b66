"""Django REST framework as in its tutorial: a viewset, a model serializer, a router.

Its CursorPagination is the fair choice: its other two paginations count ten million rows for each page.
"""

from django.urls import include, path
from rest_framework.pagination import CursorPagination
from rest_framework.routers import SimpleRouter
from rest_framework.serializers import ModelSerializer, SlugRelatedField
from rest_framework.viewsets import ModelViewSet

from ops.tools.lab.contenders.shop.models import Product

FIELDS = [
    "id",
    "low_price",
    "high_price",
    "demand_qty",
    "offers_qty",
    "bought_qty",
    "sold_qty",
    "time_created",
]


class ProductSerializer(ModelSerializer):
    class Meta:
        model = Product
        fields = FIELDS


class ProductDetailSerializer(ModelSerializer):
    category = SlugRelatedField(slug_field="slug", read_only=True)

    class Meta:
        model = Product
        fields = [*FIELDS, "category"]


class Pages(CursorPagination):
    ordering = ("time_created", "id")
    page_size = 100
    page_size_query_param = "limit"


class ProductViewSet(ModelViewSet):
    queryset = Product.objects.all()
    pagination_class = Pages

    def get_queryset(self):
        products = super().get_queryset()
        return products if self.action == "list" else products.select_related("category")

    def get_serializer_class(self):
        return ProductSerializer if self.action == "list" else ProductDetailSerializer


router = SimpleRouter(trailing_slash=False)
router.register("products", ProductViewSet)

urlpatterns = [path("api/", include(router.urls))]
