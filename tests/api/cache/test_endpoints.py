"""A Ninja endpoint marked as cached: its key follows from its signature, and it sees no other parameters."""

import uuid
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, JsonResponse
from django.urls import path, re_path
from ninja import Cookie, Field, Header, NinjaAPI, Query, Router, Schema
from ninja.security import APIKeyCookie, APIKeyHeader, APIKeyQuery, HttpBearer
from ninja.throttling import AnonRateThrottle
from pytest_django import Settings

from api.cache.policy import POLICIES, cached, one
from api.ninja import Api
from ops.asgi.handler import LeanASGIHandler
from tests.api.cache import views
from tests.api.cache.harness import Cached, counts
from tests.api.cache.harness import cached as serve_cached
from tests.api.cache.views import calls
from tests.shop.models import Category, Product
from tests.shop.queries import PRODUCTS

Keys = Callable[[], set[str]]
Page = Callable[..., Any]
OPTIONS: dict[str, Any] = {"fresh": 10, "stale": 60, "depends_on": [Category]}
router = Router()


class Filters(Schema):
    least: int = 0
    order: Annotated[str, Field(alias="by")] = "id"


def shown(request: HttpRequest, **values: Any) -> dict[str, Any]:
    """The parameters as the endpoint has understood them, and everything else that it might see."""
    calls[request.path.split("/")[2]] += 1
    return {**values, "query": request.META["QUERY_STRING"], "path": request.path}


@router.get("/stats")
@cached("tests.asked stats", **OPTIONS)
async def stats(request: HttpRequest, year: int = 0, month: str = "") -> Any:
    return shown(request, year=year, month=month, spied=request.GET.get("spied"))


@router.get("/filtered")
@cached("tests.asked filtered", **OPTIONS)
async def filtered(
    request: HttpRequest, filters: Query[Filters], q: Annotated[str, Query(alias="search")] = ""
) -> Any:
    return shown(request, least=filters.least, order=filters.order, q=q)


@router.get("/named")
@cached("tests.asked named", parameters=["year"], **OPTIONS)
async def named(request: HttpRequest) -> Any:
    """Reads its parameters itself, one of which is not declared."""
    return shown(request, year=request.GET.get("year"), month=request.GET.get("month"))


@router.get("/none")
@cached("tests.asked none", **OPTIONS)
async def none(request: HttpRequest) -> Any:
    return shown(request, year=request.GET.get("year"))


@router.get("/numbered/{int:number}")
@cached("tests.asked numbered", **OPTIONS)
async def numbered(request: HttpRequest, number: int) -> Any:
    return shown(request, number=number)


@router.get("/text/{text}")
@cached("tests.asked text", **OPTIONS)
async def text(request: HttpRequest, text: str) -> Any:
    return shown(request, text=text)


@cached("tests.asked plain", **OPTIONS)
async def plain(request: HttpRequest, **arguments: str) -> Any:
    return JsonResponse(shown(request, year=request.GET.get("year"), **arguments))


api = Api(urls_namespace="test-endpoints")
api.add_router("", router)
urlpatterns = [
    path("api/", api.urls),
    path("a/plain", plain),
    path("b/plain", plain),
    re_path(r"^c/plain/(?P<digits>[0-9]+)$", plain),
]


@pytest.fixture
def pages(prefix: str, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cached]:
    settings.ROOT_URLCONF = __name__
    views.reset()
    with serve_cached(LeanASGIHandler(), monkeypatch) as serving:
        yield serving


def test_another_question_gets_another_answer(pages: Cached) -> None:
    for _ in range(3):
        for year in (2020, 2021):
            assert pages.get(f"/api/stats?year={year}").json()["year"] == year
    assert calls["stats"] == 2


@pytest.mark.parametrize(
    ("asked", "query"),
    [
        ("stats?year=2020&spied=1&_=5", "year=2020"),
        ("stats?month=a%20b&spied=1&%79ear=%32", "year=2&month=a+b"),
        ("stats?spied", ""),
        ("filtered?spied=1&search=x&by=price&least=5&order=z&q=z", "least=5&by=price&search=x"),
        ("named?month=5&year=2020", "year=2020"),
        ("none?year=2020", ""),
    ],
)
def test_what_the_key_leaves_out_the_endpoint_cannot_see(
    pages: Cached, keys: Keys, asked: str, query: str
) -> None:
    name = asked.partition("?")[0]
    first = pages.get(f"/api/{asked}").json()
    assert first["query"] == query
    assert not {"spied", "1", "z"} & {value for value in first.values() if isinstance(value, str)}
    if name in ("named", "none"):
        assert first["year"] == (None if name == "none" else "2020")
    assert pages.get(f"/api/{name}?{query}&other=1").json() == first
    assert calls[name] == 1
    assert {key for key in keys() if key.startswith("entry")} == {f"entry:/api/{name}?{query}"}


def test_a_parameter_twice_goes_past_the_cache(pages: Cached, keys: Keys) -> None:
    for number in range(1, 4):
        response = pages.get("/api/stats?year=2020&year=2021&spied=x")
        assert (response.json()["year"], response.json()["spied"]) == (2021, "x")  # as without a cache
        assert "cache-status" not in response.headers
        assert calls["stats"] == number
    assert keys() == set()


def test_the_path_is_canonical(pages: Cached, keys: Keys) -> None:
    for spelled in ("/api/numbered/007", "/api/numbered/7", "/api/numbered/%307", "/%61pi/numbered/7?x=1"):
        answer = pages.get(spelled).json()
        assert (answer["number"], answer["path"], answer["query"]) == (7, "/api/numbered/7", "")
    assert calls["numbered"] == 1
    for spelled in ("/api/text/a%3Fb", "/api/text/a", "/api/text/a?b"):
        pages.get(spelled)
    assert {key for key in keys() if "text" in key} == {"entry:/api/text/a%3Fb?", "entry:/api/text/a?"}


def test_two_routes_to_a_view_are_two_pages(pages: Cached) -> None:
    """Answers may say where they are, as links do."""
    for _ in range(2):
        for place in ("/a/plain", "/b/plain", "/c/plain/007", "/c/plain/7"):
            answer = pages.get(f"{place}?year=2020").json()
            assert (answer["path"], answer["year"]) == (place, None)
    assert calls["plain"] == 4


# --- Refused at the start -------------------------------------------------------------------------


@pytest.fixture
def name() -> Iterator[str]:
    name = f"test {uuid.uuid4()}"
    yield name
    POLICIES.pop(name, None)


class Key(APIKeyHeader):
    param_name = "X-Token"

    def authenticate(self, request: HttpRequest, key: str | None) -> Any:
        return key


class CookieKey(APIKeyCookie):
    authenticate = Key.authenticate


class QueryKey(APIKeyQuery):
    authenticate = Key.authenticate


class Bearer(HttpBearer):
    def authenticate(self, request: HttpRequest, token: str) -> Any:
        return token


def build(
    view: Page, *, route: str = "/page", of_api: Any = None, of_router: Any = None, **options: Any
) -> list[Any]:
    """The URLs of an API that has one endpoint."""
    router = Router(**({"auth": of_router} if of_router else {}))
    router.get(route, **options)(view)
    api = Api(urls_namespace=f"test-{uuid.uuid4()}", **({"auth": of_api} if of_api else {}))
    api.add_router("", router)
    urls: list[Any] = api.urls[0]
    return urls


async def view(request: HttpRequest) -> Any:
    return {}


@pytest.mark.parametrize("kind", [Key, CookieKey, QueryKey, Bearer])
@pytest.mark.parametrize("place", ["auth", "of_router", "of_api"])
def test_an_authenticator(name: str, kind: type[Any], place: str) -> None:
    marked = cached(name, **OPTIONS)(as_view())
    with pytest.raises(ImproperlyConfigured) as refused:
        build(marked, **{place: kind()})
    message = str(refused.value)
    assert "\n" not in message
    for said in (f"{__name__}.view", "GET /page", "authenticator", "@cached", "auth=None"):
        assert said in message
    assert build(as_view(), **{place: kind()})  # without @cached
    assert build(marked, **({place: kind()} | {"auth": None}) if place != "auth" else {"auth": None})


def as_view() -> Page:
    """A copy of the view: a decorator marks its argument."""

    async def view(request: HttpRequest) -> Any:
        return {}

    return view


def test_a_throttle(name: str) -> None:
    """It would know no client, and count the misses of all as one's."""
    with pytest.raises(ImproperlyConfigured, match="throttled"):
        build(cached(name, **OPTIONS)(as_view()), throttle=[AnonRateThrottle("1/s")])


def test_header_fields_and_cookies(name: str) -> None:
    async def reads_header(request: HttpRequest, x_tenant: Annotated[str, Header()] = "") -> Any:
        return x_tenant

    async def reads_cookie(request: HttpRequest, session: Annotated[str, Cookie()] = "") -> Any:
        return session

    mark = cached(name, **OPTIONS)
    for reads, parameter in ((reads_header, "x_tenant"), (reads_cookie, "session")):
        with pytest.raises(ImproperlyConfigured, match=parameter):
            build(mark(reads))


@pytest.mark.parametrize("listing", [True, False])
def test_a_declared_parameter_that_is_not_in_the_key(name: str, listing: bool) -> None:  # noqa: FBT001
    async def reads(request: HttpRequest, year: int, limit: int = 5) -> Any:
        return year

    options = OPTIONS | ({"name": name} if listing else {"parameters": ["limit"]})
    mark = cached(PRODUCTS if listing else name, **options)
    with pytest.raises(ImproperlyConfigured, match=r"\['year'\]"):
        build(mark(reads))


def test_a_row_that_the_path_does_not_name(name: str) -> None:
    mark = cached(name, fresh=1, stale=1, depends_on=[one(Product, "product_id")])
    with pytest.raises(ImproperlyConfigured, match="product_id"):
        build(mark(as_view()))

    async def right(request: HttpRequest, product_id: int) -> Any:
        return {}

    assert build(mark(right), route="/page/{id:product_id}")


def test_the_key_of_an_endpoint_follows_from_its_signature() -> None:
    assert isinstance(api, NinjaAPI)
    bound = [*_policies(api)]
    parameters = {policy.name: policy.resource.parameters for policy in bound}
    assert parameters["tests.asked stats"] == ("year", "month")
    assert parameters["tests.asked filtered"] == ("least", "by", "search")
    assert parameters["tests.asked named"] == ("year",)
    assert parameters["tests.asked none"] == ()
    assert all(counts(policy) == counts(POLICIES[policy.name]) for policy in bound)


def _policies(api: NinjaAPI) -> Iterator[Any]:
    for bound in api._get_bound_routers():
        for found in bound.path_operations.values():
            yield found.get_view().page_policy  # type: ignore[attr-defined]
