"""The viewset of `drf` with its list cached as in "Caching" of Django REST framework's API guide."""

from django.urls import include, path
from django.utils.decorators import method_decorator
from django.views.decorators.cache import cache_page
from rest_framework.routers import SimpleRouter

from ops.tools.lab.contenders.drf import urls


@method_decorator(cache_page(60 * 10), name="list")
class ProductViewSet(urls.ProductViewSet):
    pass


router = SimpleRouter(trailing_slash=False)
router.register("products", ProductViewSet)

urlpatterns = [path("api/", include(router.urls))]
