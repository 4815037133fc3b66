"""The viewset of `drf_writes` with cache-aside: a product is kept for 200 ms by Django's low-level cache API.

The cache keeps the serializer's data as a dictionary. A write deletes it.
"""

from django.core.cache import cache
from django.urls import include, path
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import SimpleRouter
from rest_framework.serializers import ModelSerializer

from ops.tools.lab.contenders.drf_writes import urls
from ops.tools.lab.contenders.shop.models import Product

LIFE = 0.2  # seconds


class ProductViewSet(urls.ProductViewSet):
    def retrieve(self, request: Request, pk: str):
        data = cache.get(pk)
        if data is None:
            data = self.get_serializer(self.get_object()).data
            cache.set(pk, dict(data), LIFE)
        return Response(data)

    def perform_update(self, serializer: ModelSerializer):
        super().perform_update(serializer)
        cache.delete(self.kwargs["pk"])

    def perform_destroy(self, instance: Product):
        super().perform_destroy(instance)
        cache.delete(self.kwargs["pk"])


router = SimpleRouter(trailing_slash=False)
router.register("products", ProductViewSet, basename="product")

urlpatterns = [path("api/", include(router.urls))]
