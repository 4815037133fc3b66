"""All that changes vouchers and categories."""

from api import BulkWrites, Import, Writes
from tests.shop.queries import CATEGORY, ORDER_LINE, VOUCHER

VOUCHER_WRITES = Writes(VOUCHER, fields=[
    *("code", "percent", "kind", "note", "details", "starts", "ends", "uses", "category", "partner_id"),
])  # fmt: skip
VOUCHER_BULK = BulkWrites(VOUCHER_WRITES)
VOUCHER_IMPORT = Import(VOUCHER_WRITES)
STRICT_WRITES = Writes(VOUCHER, fields=["uses", "code", "percent", "category"], strict=True)
CATEGORY_WRITES = Writes(CATEGORY)
CATEGORY_BULK = BulkWrites(CATEGORY_WRITES)
ORDER_LINE_WRITES = Writes(ORDER_LINE)
