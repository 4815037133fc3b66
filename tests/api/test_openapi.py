"""The OpenAPI document: it is valid, and what it says of parameters and answers is true of the running service."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openapi_spec_validator import OpenAPIV31SpecValidator

from api import describe_list
from api.openapi import CACHED
from tests.api.schemas import violations
from tests.service import Service
from tests.shop.queries import PRODUCTS

Operation = tuple[str, str, dict[str, Any]]


@pytest.fixture(scope="module")
def document(service: Service) -> dict[str, Any]:
    response = service.client.get("/api/openapi.json")
    assert response.headers["content-type"] == "application/json"
    found: dict[str, Any] = response.json()
    return found


def operations(document: dict[str, Any]) -> Iterator[Operation]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def walk(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from walk(child)


def parameters(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Path with example values, name and schema of each query parameter of each GET operation."""
    for path, _, operation in operations(document):
        if "get" in document["paths"][path]:
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "query":
                    yield filled(document, path), parameter["name"], parameter["schema"]


def filled(document: dict[str, Any], path: str) -> str:
    """The path with the example of each path parameter."""
    for parameter in document["paths"][path]["get"].get("parameters", ()):
        if parameter["in"] == "path":
            example = parameter.get("example", parameter["schema"].get("example"))
            path = path.replace(f"{{{parameter['name']}}}", str(example))
    assert "{" not in path
    return path


def status(api: httpx.Client, path: str, name: str, value: object) -> int:
    return api.get(f"{path}?{name}={quote(str(value), safe='')}").status_code


def test_structure(document: dict[str, Any]) -> None:
    assert not list(OpenAPIV31SpecValidator(document).iter_errors())
    for _, _, operation in operations(document):
        assert all(parameter["description"] for parameter in operation.get("parameters", ()))
        assert {"200", "201", "204"} & {*operation["responses"]}
        for code, answer in operation["responses"].items():
            if code == "304":
                assert "ETag" in answer["headers"]
                assert "content" not in answer
            else:
                kind = "application/json" if code in ("200", "201") else "application/problem+json"
                assert code == "204" or kind in answer["content"]


def test_a_filter_says_what_it_compares(document: dict[str, Any]) -> None:
    listed = document["paths"]["/api/products"]["get"]["parameters"]
    said = {each["name"]: each["description"] for each in listed}
    assert (
        said["low_price_max"] == "Filter: low_price at or below this value. Served with sort `[-]low_price`."
    )
    assert said["category"] == (
        "Filter: only those of this category, named by its slug. Served with sort `[-]time_created`."
    )


def test_no_property_is_an_array_or_an_object(document: dict[str, Any]) -> None:
    """Generators for Java and TypeScript make code of it that does not compile, or that loses the array."""
    for schema in document["components"]["schemas"].values():
        for node in walk(schema):
            types = {choice.get("type", "object") for choice in node.get("anyOf", ())}
            assert not {"array", "object"} <= types
    pages = document["components"]["schemas"]["ProductList"]["oneOf"]
    assert [page["$ref"].rsplit("/", 1)[1] for page in pages] == ["ProductPage", "ProductPageInColumns"]


def test_no_schema_is_left_over(document: dict[str, Any]) -> None:
    used = {node["$ref"].rsplit("/", 1)[1] for node in walk(document) if isinstance(node.get("$ref"), str)}
    assert set(document["components"]["schemas"]) == used


def test_every_integer_says_its_width(document: dict[str, Any]) -> None:
    """Without it, generators for Java, Go and C# make 32 bits of an id."""
    integers = [node for node in walk(document) if node.get("type") == "integer"]
    assert {node["format"] for node in integers if "maximum" not in node} == {"int64"}
    assert {node["format"] for node in integers if node.get("maximum", 0) == 2**63 - 1} == {"int64"}
    assert {node["format"] for node in integers if node.get("maximum", 2**31) < 2**31} == {"int32"}


def test_no_header_has_one_value_only(document: dict[str, Any]) -> None:
    """An answer that is not stored has another Cache-Control than one that is."""
    for _, _, operation in operations(document):
        for answer in operation["responses"].values():
            assert not any("const" in header["schema"] for header in answer.get("headers", {}).values())
        assert operation["responses"]["503"]["headers"]["Retry-After"]["schema"]["type"] == "integer"


def test_the_document_has_the_header_fields_of_a_page(api: httpx.Client, document: dict[str, Any]) -> None:
    """Those of every page, whether it is cached or not, and those of a cache."""
    assert [*describe_list(PRODUCTS)["openapi_extra"]["responses"][200]["headers"]] == ["Link"]
    page = document["paths"]["/api/products"]["get"]["responses"]["200"]
    assert {"Link", *CACHED} == {*page["headers"]}
    assert "application/json" in page["content"]
    assert 'rel="next"' in api.get("/api/products?limit=1").headers["link"]
    assert "Link" not in document["paths"]["/api/products/{product_id}"]["get"]["responses"]["200"]["headers"]


def test_the_document_says_the_width_of_moments(document: dict[str, Any]) -> None:
    moment = document["components"]["schemas"]["Product"]["properties"]["time_created"]
    assert moment["format"] == "date-time"
    assert "six digits" in moment["description"]
    taken = {p["name"]: p for p in document["paths"]["/api/products"]["get"]["parameters"]}
    assert "beyond microseconds is cut" in taken["created_after"]["description"]


def test_columns_have_the_types_of_the_rows(document: dict[str, Any]) -> None:
    """A value of a column is what the same field of a row is: its type, its bounds, what is said of it."""
    schemas = document["components"]["schemas"]
    for name in ("Product", "Order", "OrderLine", "Voucher", "Category"):
        rows, columns = (schemas[each]["properties"] for each in (name, f"{name}Columns"))
        assert {field: column["items"] for field, column in columns.items()} == {
            field: {key: value for key, value in row.items() if key not in {"title", "default"}}
            for field, row in rows.items()
        }


@pytest.mark.parametrize("path", ["/api/openapi.json", "/api/docs"])
def test_the_document_is_asked_for_again_by_its_tag(api: httpx.Client, path: str) -> None:
    first = api.get(path)
    assert first.headers["cache-control"] == "public, no-cache"
    again = api.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert api.get(path, headers={"If-None-Match": '"another"'}).content == first.content
    assert api.post(path).status_code == 405


def test_minimum_and_maximum(api: httpx.Client, document: dict[str, Any]) -> None:
    limited = [p for p in parameters(document) if p[2]["type"] == "integer"]
    assert limited
    for path, name, schema in limited:
        for limit, beyond in (("minimum", -1), ("maximum", 1)):
            assert status(api, path, name, schema[limit]) == 200
            assert status(api, path, name, schema[limit] + beyond) == 422


def test_enum(api: httpx.Client, document: dict[str, Any]) -> None:
    limited = [p for p in parameters(document) if "enum" in p[2]]
    assert limited
    for path, name, schema in limited:
        assert {status(api, path, name, value) for value in schema["enum"]} == {200}
        assert status(api, path, name, schema["enum"][0] + "x") == 422


def test_examples_and_defaults(api: httpx.Client, document: dict[str, Any]) -> None:
    for path, name, schema in parameters(document):
        for value in [*schema.get("examples", ()), *([schema["default"]] if "default" in schema else ())]:
            assert not list(violations(document, schema, value))
            assert status(api, path, name, value) == 200
            without, said = api.get(path).content, api.get(path, params={name: value}).content
            assert value != schema.get("default") or without == said


def test_lengths(api: httpx.Client, document: dict[str, Any]) -> None:
    for path, name, schema in parameters(document):
        if "maxLength" in schema:
            assert status(api, path, name, "a" * (schema["maxLength"] + 1)) == 422
        if schema["type"] == "string":
            assert any(violations(document, schema, "")) or "format" in schema
            assert status(api, path, name, "") == 422


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_patterns(service: Service, document: dict[str, Any], data: st.DataObject) -> None:
    """A value that matches is accepted, any other is refused."""
    matched = [p for p in parameters(document) if "pattern" in p[2] and p[1] != "cursor"]
    path, name, schema = data.draw(st.sampled_from(matched))
    value = data.draw(st.from_regex(schema["pattern"], fullmatch=True, alphabet=st.characters(codec="ascii")))
    assert status(service.client, path, name, value) == 200
    other = value + data.draw(st.sampled_from(["\n", " ", "!", ".1.1", ",", "\u0663"]))
    assert status(service.client, path, name, other) == 422


@pytest.mark.parametrize(
    ("url", "template"),
    [
        *((f"/api/products{query}", "/api/products") for query in (
            "", "?limit=3&fields=category,id", "?layout=columns&limit=2", "?category=none",
            "?sort=-low_price&limit=1000", "?category=none&layout=columns", "?limit=0", "?x=1&limit=a",
            "?sort=id&low_price_min=1", "?cursor=x",
        )),
        *((f"/api/products/{rest}", "/api/products/{product_id}") for rest in (
            "1", "1?fields=id", "21", "20", "99999999", "0", "1?fields=x"
        )),
        *((f"/api/categories{query}", "/api/categories") for query in ("", "?layout=columns", "?limit=1", "?a=1")),
    ],
)  # fmt: skip
def test_answers_are_as_documented(
    api: httpx.Client, document: dict[str, Any], url: str, template: str
) -> None:
    response = api.get(url)
    responses = document["paths"][template]["get"]["responses"]
    content = responses[str(response.status_code)]["content"]
    schema = content[response.headers["content-type"]]["schema"]
    assert not list(violations(document, schema, response.json()))
    if response.status_code == 200:
        assert list(violations(document, schema, response.json() | {"unheard-of": 1}))


def test_an_undocumented_method_is_answered_as_the_default(
    api: httpx.Client, document: dict[str, Any]
) -> None:
    content = document["paths"]["/api/products"]["get"]["responses"]["default"]["content"]
    answer = api.request("TRACE", "/api/products")
    assert not list(violations(document, content[answer.headers["content-type"]]["schema"], answer.json()))
