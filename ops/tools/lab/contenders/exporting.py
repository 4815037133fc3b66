"""Contenders that answer many rows of a table at once. `{}` in their paths is the number of rows."""

from ops.tools.lab.contender import ROOM, SUB10, Contender, gunicorn, uvicorn

# Writes a line of JSON for each row. The JSON has neither this QUOTE nor this DELIMITER, so CSV doubles and escapes
# nothing in it.
COPY = r"""
    COPY (
        SELECT '{{"id":' || id || ',"low_price":"' || low_price || '","high_price":"' || high_price
            || '","demand_qty":' || demand_qty || ',"offers_qty":' || offers_qty || ',"bought_qty":' || bought_qty
            || ',"sold_qty":' || sold_qty || ',"time_created":' || to_json(time_created) || '}}'
        FROM products_product ORDER BY id LIMIT {}
    ) TO STDOUT (FORMAT csv, QUOTE E'\x01', DELIMITER E'\x02')
"""
FIELDS = "id,low_price,high_price,demand_qty,offers_qty,bought_qty,sold_qty,time_created"
DJANGO = Contender(
    name="django",
    summary="Django on gunicorn, a sync worker: REST framework's ways, and a streamed iterator()",
    command=gunicorn("drf_writes.wsgi:application", "--timeout", "300"),
    environment={"DJANGO_SETTINGS_MODULE": f"{ROOM}.export.settings"},
    packages=("djangorestframework", "django"),
)
FASTAPI = Contender(
    name="fastapi",
    summary="FastAPI, asyncpg, Pydantic, uvicorn",
    command=uvicorn("export.fastapi:app"),
    packages=("fastapi", "asyncpg"),
)
RAW = Contender(
    name="raw",
    summary="one ASGI function, psycopg's COPY",
    command=uvicorn("export.raw:app"),
    environment={"EXPORT_COPY": COPY.replace("{", "{{").replace("}", "}}")},
    packages=("uvicorn", "psycopg"),
)
EXPORTING = (
    ("sub10, ndjson", SUB10, f"/api/products/export?sort=id&fields={FIELDS}&limit={{}}"),
    ("sub10, csv", SUB10, f"/api/products/export?sort=id&fields={FIELDS}&limit={{}}&format=csv"),
    ("raw: psycopg's COPY", RAW, "/lines/{}"),
    ("FastAPI, Pydantic", FASTAPI, "/models/{}"),
    ("DRF, no serializer", DJANGO, "/loop/{}"),
    ("Django, iterator(100), streamed", DJANGO, "/stream/{}"),
    ("DRF, serializer over values()", DJANGO, "/values/{}"),
    ("DRF, serializer over objects", DJANGO, "/objects/{}"),
)
