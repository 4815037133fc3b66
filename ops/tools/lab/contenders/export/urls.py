"""Django's ways: REST framework over objects, over values(), without a serializer; a streamed iterator()."""

import json
from collections.abc import Iterator

from django.core.serializers.json import DjangoJSONEncoder
from django.http import HttpRequest, StreamingHttpResponse
from django.urls import path
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from ops.tools.lab.contenders.drf.urls import FIELDS, ProductSerializer
from ops.tools.lab.contenders.shop.models import Product


class Objects(APIView):
    """A serializer over objects."""

    def get(self, request: Request, rows: int) -> Response:
        return Response(ProductSerializer(Product.objects.order_by("id")[:rows], many=True).data)


class Values(APIView):
    """A serializer over values()."""

    def get(self, request: Request, rows: int) -> Response:
        found = Product.objects.order_by("id").values(*FIELDS)[:rows]
        return Response(ProductSerializer(found, many=True).data)


class Loop(APIView):
    """No serializer: a list for each column, filled from values()."""

    def get(self, request: Request, rows: int) -> Response:
        columns = {name: [] for name in FIELDS}
        for row in Product.objects.order_by("id").values(*FIELDS)[:rows]:
            for name in FIELDS:
                columns[name].append(row[name])
        return Response(columns)


def stream(request: HttpRequest, rows: int) -> StreamingHttpResponse:
    """Stream a line of JSON for each row of iterator(chunk_size=100)."""

    def lines() -> Iterator[str]:
        for row in Product.objects.order_by("id").values(*FIELDS)[:rows].iterator(chunk_size=100):
            yield json.dumps(row, cls=DjangoJSONEncoder) + "\n"

    return StreamingHttpResponse(lines(), content_type="application/x-ndjson")


urlpatterns = [
    path("objects/<int:rows>", Objects.as_view()),
    path("values/<int:rows>", Values.as_view()),
    path("loop/<int:rows>", Loop.as_view()),
    path("stream/<int:rows>", stream),
]
