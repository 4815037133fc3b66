"""Writes through Django's test client, in the test's transaction."""

import pytest
from django.test import Client

from tests.shop.models import Voucher

GOOD = {"code": "mine", "percent": 7, "category": "garden"}
JSON = "application/json"


@pytest.mark.django_db
def test_a_write_is_in_the_tests_transaction(client: Client) -> None:
    created = client.post("/api/vouchers", GOOD, content_type=JSON)
    assert created.status_code == 201, created.content
    voucher = Voucher.objects.get(code="mine")
    assert created["location"] == f"/api/vouchers/{voucher.pk}"
    assert client.get(created["location"]).content == created.content


@pytest.mark.django_db
def test_a_write_that_is_refused_leaves_the_transaction_usable(client: Client) -> None:
    assert not Voucher.objects.filter(code="mine").exists()  # of the test before
    url = client.post("/api/vouchers", GOOD, content_type=JSON)["location"]
    refused = client.post("/api/vouchers", GOOD | {"percent": 8}, content_type=JSON)
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    stale = client.patch(url, {"uses": 1}, content_type=JSON, headers={"if-match": '"x"'})
    assert stale.status_code == 412
    assert client.patch(url, {"uses": 1}, content_type=JSON).json()["uses"] == 1
    assert Voucher.objects.get(code="mine").uses == 1
    assert client.delete(url).status_code == 204
    assert not Voucher.objects.filter(code="mine").exists()
