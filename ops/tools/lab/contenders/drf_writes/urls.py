"""The viewset of `drf` with a serializer that writes: it takes the category by its slug, and no negative quantities.

`bulk` is `many=True`, as in "Dealing with multiple objects" of the API guide.
"""

from django.urls import include, path
from django.utils import timezone
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import SimpleRouter
from rest_framework.serializers import DateTimeField, ModelSerializer, SlugRelatedField

from ops.tools.lab.contenders.drf import urls
from ops.tools.lab.contenders.shop.models import Category, Product

QUANTITIES = ("demand_qty", "offers_qty", "bought_qty", "sold_qty")


class ProductWriteSerializer(ModelSerializer):
    time_created = DateTimeField(default=timezone.now)
    category = SlugRelatedField(
        slug_field="slug", queryset=Category.objects.all(), allow_null=True, required=False
    )

    class Meta:
        model = Product
        fields = [*urls.FIELDS, "category"]
        extra_kwargs = {name: {"min_value": 0} for name in QUANTITIES}


class ProductViewSet(urls.ProductViewSet):
    def get_serializer_class(self):
        return urls.ProductSerializer if self.action == "list" else ProductWriteSerializer

    @action(detail=False, methods=["post"])
    def bulk(self, request: Request):
        serializer = self.get_serializer(data=request.data, many=True)
        serializer.is_valid(raise_exception=True)
        serializer.save()
        return Response(serializer.data, status=201)


router = SimpleRouter(trailing_slash=False)
router.register("products", ProductViewSet)

urlpatterns = [path("api/", include(router.urls))]
