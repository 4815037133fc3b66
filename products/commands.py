"""All that changes products: the commands of POST, PATCH, PUT and DELETE, of one and of many, and the import."""

from django.db.models.functions import Now

from api import BulkWrites, Import, Writes
from products.queries import PRODUCT

PRODUCT_WRITES = Writes(PRODUCT, defaults={"time_created": Now()})
PRODUCT_BULK = BulkWrites(PRODUCT_WRITES)
PRODUCT_IMPORT = Import(PRODUCT_WRITES)
