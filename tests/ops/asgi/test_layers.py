"""What stands in front of the page cache is heard on every hit, whether the wire writes it or not."""

import re
from collections.abc import Iterator
from functools import wraps
from ipaddress import ip_network
from typing import Any

import pytest
from pytest_django import Settings

from api.cache.layer import PageCache
from ops.asgi.admission import admission
from ops.asgi.cors import Cors
from ops.asgi.head import Head
from ops.asgi.hits import Hit, front_of
from ops.asgi.hosts import AllowedHosts
from ops.asgi.problems import refuse
from ops.asgi.root_path import RootPath
from ops.asgi.security import SecurityHeaders
from ops.asgi.telemetry import Telemetry
from ops.asgi.types import Application, Fields, Message, Receive, Scope, Send
from tests.ops.gunicorn.corpus import TARGET, request
from tests.ops.gunicorn.twins import Around, Counts, Twins, plain, read_all, twins, within

HIT_WIRE, HIT_L1 = ("hit", "wire"), ("hit", "l1")
TOKEN = b"X-Token: secret"


class Silent:
    """A layer as it is written everywhere: asks for a token and adds a field."""

    def __init__(self, application: Application) -> None:
        self.application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (b"x-token", b"secret") not in scope["headers"]:
            await refuse(send, 401, "no_token", "Say who you are.")
            return

        async def add(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"x-frame-options", b"DENY")]}
            await send(message)

        await self.application(scope, receive, add)


class Declared(Silent):
    """The same, which also says so of a hit."""

    def __init__(self, application: Application) -> None:
        super().__init__(application)
        self.hits: list[tuple[str, int]] = []
        self.is_open = True  # whether the wire may answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__(scope, receive, send)

    def admits(self, hit: Hit) -> bool:
        return self.is_open and (b"x-token", b"secret") in hit.headers

    def fields(self, hit: Hit) -> bytes:
        return b"x-frame-options: DENY\r\n"

    def sent(self, hit: Hit) -> None:
        self.hits.append((hit.route, hit.status))


class Failing(Declared):
    """Has an error after the answer was written."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__(scope, receive, send)

    def admits(self, hit: Hit) -> bool:
        return super().admits(hit)

    def sent(self, hit: Hit) -> None:
        raise ValueError("it does not count")


class Inherited(Declared):
    """What it does to a request is its own, what it says of a hit is not."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__(scope, receive, send)


class Renamed:
    """Names what it wraps as much of the world does."""

    def __init__(self, app: Application) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)

    def admits(self, hit: Hit) -> bool:
        return True


class Proxy(Silent):
    """Passes on what it does not have itself: the wrapped one's attributes look like its own."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.application, name)


class Subclass(PageCache):
    """A page cache that asks first."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await Silent(super().__call__)(scope, receive, send)


def subclassed(pages: Any) -> Application:
    """The page cache of the test, as if it had been made so."""
    pages.__class__ = Subclass
    return pages  # type: ignore[no-any-return]


def closure(application: Application) -> Application:
    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        await application(scope, receive, send)

    return wrapped


def copied(application: Application) -> Application:
    """As `closure`, with the attributes of what it wraps."""
    return wraps(application)(closure(Silent(application)))


def exchange(pair: Twins, *headers: bytes, **named: Any) -> tuple[bytes, Counts]:
    """The answer of the wire's server, found to be that of the other, and how its cache counted it."""
    asked = request(TARGET, *headers, **named)
    for _ in range(3):  # computed, found, and by now the wire's, if it may
        answer, counts = pair.wire.exchange([asked])
    assert answer == pair.layer.exchange([asked])[0]
    return answer, counts


@pytest.fixture(params=[1, 2], ids=["inside", "outside"])
def declared(request: pytest.FixtureRequest) -> Iterator[Twins]:
    def around(pages: Application) -> Application:
        # The wire writes the fields of the outermost layer last.
        return plain(Declared(pages)) if request.param == 1 else SecurityHeaders(Declared(within(pages)))

    with twins(around) as pair:
        yield pair


def test_an_error_after_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the connection goes on."""
    asked = request(TARGET, TOKEN)
    with twins(lambda pages: plain(Failing(pages))) as pair:
        exchange(pair, TOKEN)
        caplog.clear()
        answers, counts = pair.wire.exchange([asked, asked + asked])
    assert counts == {HIT_WIRE: 3}
    assert answers.count(b"HTTP/1.1 200 ") == 3
    errors = [str(record.exc_info[1]) for record in caplog.records if record.exc_info]
    assert errors == ["it does not count"] * 3


class Telling(Declared):
    """Its field depends on the answer."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__(scope, receive, send)

    def admits(self, hit: Hit) -> bool:
        return super().admits(hit)

    def fields(self, hit: Hit) -> bytes:
        return f"x-seen: {hit.route} {hit.status}\r\n".encode()


def test_a_field_for_a_refusal_of_the_wire(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told of that answer, not of the one before on the connection."""
    asked, refused = request(TARGET, TOKEN), request(b"/nowhere/7", TOKEN)
    with twins(lambda pages: plain(Telling(pages))) as pair:
        for _ in range(2):  # computed and found: the next one is the wire's
            pair.wire.exchange([asked])
        monkeypatch.setattr(admission, "limit", 0)
        answers, _ = pair.wire.exchange([asked, refused])
        alone, _ = pair.wire.exchange([refused])
    assert b"\r\nx-seen: page/<name> 200\r\n" in answers
    for answer in (answers, alone):
        assert b"HTTP/1.1 503 " in answer
        assert b"\r\nx-seen: unmatched 503\r\n" in answer


def test_a_layer_that_declares_itself(declared: Twins) -> None:
    answer, counts = exchange(declared, TOKEN)
    assert counts == {HIT_WIRE: 1}
    assert b"\r\nx-frame-options: DENY\r\n" in answer
    refused, counts = exchange(declared)
    assert refused.startswith(b"HTTP/1.1 401 ")
    assert not counts


def test_a_connection_that_repeats_itself_is_admitted_each_time(declared: Twins) -> None:
    """The wire does not parse the same bytes twice, and asks all the same: a limit may have been reached."""
    exchange(declared, TOKEN)
    layer: Any = declared.wire.config.loaded_app
    while type(layer) is not Declared:
        layer = layer.application
    layer.hits.clear()
    asked = request(TARGET, TOKEN)
    _, counts = declared.wire.exchange([asked, asked])
    assert counts == {HIT_WIRE: 2}
    assert layer.hits == [("page/<name>", 200)] * 2
    layer.is_open = False
    _, counts = declared.wire.exchange([asked, asked])
    assert counts == {HIT_L1: 2}


@pytest.mark.parametrize(
    "around",
    [
        lambda pages: plain(Silent(pages)),
        lambda pages: Silent(plain(pages)),
        lambda pages: plain(Inherited(pages)),
        lambda pages: Silent(Inherited(plain(pages))),
        lambda pages: plain(Proxy(pages)),
        lambda pages: plain(subclassed(pages)),
        lambda pages: plain(copied(pages)),
    ],
    ids=["inside", "outside", "inherited", "both", "proxy", "subclass", "copied"],
)
def test_a_layer_that_says_nothing_is_called(around: Around) -> None:
    with twins(around) as pair:
        answer, counts = exchange(pair, TOKEN)
        assert counts == {HIT_L1: 1}
        assert b"\r\nx-frame-options: DENY\r\n" in answer
        refused, counts = exchange(pair)
        assert refused.startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize(
    ("around", "name"),
    [
        (lambda pages: Renamed(plain(pages)), "Renamed"),
        (lambda pages: plain(closure(pages)), "function"),
        (lambda pages: plain(Inherited(pages)), "Inherited"),
    ],
)
def test_what_cannot_be_looked_through_switches_the_wire_off(around: Around, name: str) -> None:
    with twins(around) as pair:
        assert type(front_of(pair.wire.config.app).undeclared).__name__ == name
        assert exchange(pair, TOKEN)[1] == {HIT_L1: 1}


def test_without_the_layer_for_head(settings: Settings) -> None:
    with twins(lambda pages: Telemetry(AllowedHosts(pages))) as pair:
        assert exchange(pair)[1] == {HIT_WIRE: 1}
        assert not exchange(pair, method=b"HEAD")[1]


# --- CORS -----------------------------------------------------------------------------------------

PAGE, OTHER = b"Origin: https://app.example.com", b"Origin: https://evil.example.com"
PREFLIGHT = b"Access-Control-Request-Method: PATCH", b"Access-Control-Request-Headers: authorization,x-mine"


@pytest.fixture
def cors(settings: Settings, request: pytest.FixtureRequest) -> Iterator[Twins]:
    settings.CORS_ORIGINS = request.param
    with twins(lambda pages: Telemetry(Cors(AllowedHosts(Head(pages))))) as pair:
        yield pair


LISTED = pytest.mark.parametrize("cors", [["https://app.example.com", "http://b.example:81"]], indirect=True)
OPEN = pytest.mark.parametrize("cors", [["*"]], indirect=True)


@LISTED
def test_a_page_of_a_listed_origin_may_read(cors: Twins) -> None:
    answer, counts = exchange(cors, PAGE)
    assert counts == {HIT_WIRE: 1}
    assert b"\r\naccess-control-allow-origin: https://app.example.com\r\n" in answer
    assert b"\r\nvary: origin\r\n" in answer
    assert b"ETag" in answer.split(b"access-control-expose-headers: ")[1].split(b"\r\n")[0]


@LISTED
@pytest.mark.parametrize("origin", [(), (OTHER,), (b"Origin: null",)])
def test_others_get_an_answer_that_their_browser_keeps_from_them(cors: Twins, origin: tuple[bytes]) -> None:
    exchange(cors, PAGE)
    answer, counts = exchange(cors, *origin)
    assert counts == {HIT_WIRE: 1}
    assert b"access-control" not in answer
    assert b"\r\nvary: origin\r\n" in answer


@OPEN
@pytest.mark.parametrize("origin", [(), (OTHER,)])
def test_any_origin(cors: Twins, origin: tuple[bytes]) -> None:
    answer, counts = exchange(cors, *origin)
    assert counts == {HIT_WIRE: 1}
    assert b"\r\naccess-control-allow-origin: *\r\n" in answer
    assert b"vary: origin" not in answer


@LISTED
def test_errors_can_be_read_too(cors: Twins) -> None:
    answer, _ = exchange(cors, PAGE, host=b"other.invalid")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"\r\naccess-control-allow-origin: https://app.example.com\r\n" in answer


@LISTED
def test_a_preflight(cors: Twins) -> None:
    answer, counts = exchange(cors, PAGE, *PREFLIGHT, method=b"OPTIONS")
    assert answer.startswith(b"HTTP/1.1 204 ")
    assert b"\r\naccess-control-allow-headers: authorization,x-mine\r\n" in answer
    assert b"PATCH" in answer.split(b"access-control-allow-methods: ")[1].split(b"\r\n")[0]
    assert not counts
    refused, _ = exchange(cors, OTHER, *PREFLIGHT, method=b"OPTIONS")
    assert refused.startswith(b"HTTP/1.1 403 ")
    assert b"origin_not_allowed" in refused
    assert b"access-control-allow" not in refused


@OPEN
def test_a_preflight_of_any_origin(cors: Twins) -> None:
    answer, _ = exchange(cors, OTHER, *PREFLIGHT, method=b"OPTIONS")
    assert answer.startswith(b"HTTP/1.1 204 ")
    assert b"\r\naccess-control-allow-origin: *\r\n" in answer


@LISTED
def test_a_request_for_options_that_is_no_preflight(cors: Twins) -> None:
    answer, _ = exchange(cors, PAGE, method=b"OPTIONS")
    assert answer.startswith(b"HTTP/1.1 405 ")


# --- Server-Timing --------------------------------------------------------------------------------

KEY = "k" * 32


@pytest.mark.parametrize(
    ("mode", "sent", "shown"),
    [
        ("all", (), True),
        ("none", (), False),
        ("key", (), False),
        ("key", (b"X-Server-Timing-Key: " + KEY.encode(),), True),
        ("key", (b"X-Server-Timing-Key: " + KEY[1:].encode(),), False),
        ("key", (b"X-Server-Timing-Key: \xff",), False),
    ],
)
def test_server_timing(settings: Settings, mode: str, sent: tuple[bytes, ...], *, shown: bool) -> None:
    settings.SERVER_TIMING, settings.SERVER_TIMING_KEY = mode, KEY if mode == "key" else ""
    with twins() as pair:
        answer, counts = exchange(pair, *sent)
        assert counts == {HIT_WIRE: 1}
        refused, _ = exchange(pair, *sent, host=b"other.invalid")
    for each in answer, refused:
        assert (b"\r\nserver-timing: " in each) == shown
        assert b"\r\nx-request-duration: " in each


# --- Behind a proxy that takes a prefix off -------------------------------------------------------


@pytest.mark.parametrize(
    ("trusted", "sent", "hits"),
    [
        ("127.0.0.0/8", (), {HIT_WIRE: 1}),
        ("127.0.0.0/8", (b"X-Forwarded-Prefix: /shop/",), {HIT_WIRE: 1}),
        ("127.0.0.0/8", (b"X-Forwarded-Prefix: /other",), {HIT_L1: 1}),
        ("127.0.0.0/8", (b"X-Forwarded-Prefix: //evil.example.com",), {HIT_WIRE: 1}),
        ("10.0.0.0/8", (b"X-Forwarded-Prefix: /other",), {HIT_WIRE: 1}),
    ],
)
def test_a_prefix(
    settings: Settings, trusted: str, sent: tuple[bytes, ...], hits: dict[tuple[str, str], int]
) -> None:
    settings.ROOT_PATH, settings.TRUSTED_PROXIES = "/shop", [ip_network(trusted)]
    with twins(lambda pages: RootPath(plain(pages))) as pair:
        exchange(pair)
        assert exchange(pair, *sent)[1] == hits


class Framing(Declared):
    """Says to some clients itself what every answer says."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def add(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *self._fields(scope["headers"])]}
            await send(message)

        await self.application(scope, receive, add)

    def admits(self, hit: Hit) -> bool:
        return True

    def fields(self, hit: Hit) -> bytes:
        return b"".join(b"%b: %b\r\n" % field for field in self._fields(hit.headers))

    @staticmethod
    def _fields(asked: Fields) -> Fields:
        return [(b"referrer-policy", b"no-referrer")] if (b"x-token", b"secret") in asked else []


def test_a_layer_says_itself_what_every_answer_says() -> None:
    """Each client has the field once, in whatever order they come."""
    with twins(lambda pages: plain(Framing(pages))) as pair:
        for sent, policy in ((), b"same-origin"), ((TOKEN,), b"no-referrer"), ((), b"same-origin"):
            answer, counts = exchange(pair, *sent)
            assert counts == {HIT_WIRE: 1}
            head, _, _ = answer.partition(b"\r\n\r\n")
            assert re.findall(rb"\r\nreferrer-policy: (\S+)", head) == [policy]


class Broken(Declared):
    """Its `fields` are no bytes."""

    works = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__(scope, receive, send)

    def admits(self, hit: Hit) -> bool:
        return True

    def fields(self, hit: Hit) -> bytes:
        if self.works:
            return super().fields(hit)
        raise ValueError("no bytes")


def test_an_error_in_a_layer_is_the_services() -> None:
    with twins(lambda pages: plain(Broken(pages))) as pair:
        for _ in range(3):
            answer, _ = pair.wire.exchange([request(TARGET, TOKEN)])
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b'"code":"internal_error"' in answer


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_an_error_in_a_layer_at_a_request_that_comes_again(
    method: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wire knows it without the parser."""
    monkeypatch.setattr(Broken, "works", True)
    with twins(lambda pages: plain(Broken(pages))) as pair:
        exchange(pair, TOKEN)
        asked = request(TARGET, TOKEN, method=method)
        with pair.wire.connect() as connection:
            connection.sendall(asked)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
            monkeypatch.undo()
            connection.sendall(asked)
            head, _, content = read_all(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 500 ")
    assert bool(content) is (method == b"GET")
