"""Path converters."""

from django.urls.converters import IntConverter


class IdConverter(IntConverter):
    """`{id:product_id}` is a positive integer in its one spelling, so that a resource has one URL."""

    regex = "[1-9][0-9]{0,18}"
