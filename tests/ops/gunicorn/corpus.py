"""Odd requests, and how many answers of the wire each takes.

What the wire leaves to the application counts as none. `WARM` are the targets that it knows.
"""

from typing import NamedTuple

from tests.ops.asgi.pages import BODIES, DATE

WARM = [
    *(b"/page/%b" % name.encode() for name in BODIES if name != "café"),
    b"/page/caf%C3%A9",
    b"/page/list?a=1&b=2",
    b"/page/list?b=2&a=1",  # another spelling of the same page
    b"/page/list?a=%2F&b=a+b",
]
TARGET = b"/page/list"


class Case(NamedTuple):
    """Segments that arrive one by one, and how many of their requests the wire answers."""

    hits: int
    segments: list[bytes]


def request(
    target: bytes = TARGET,
    *headers: bytes,
    method: bytes = b"GET",
    version: bytes = b"1.1",
    host: bytes | None = b"localhost",
    body: bytes = b"",
) -> bytes:
    lines = [b"%b %b HTTP/%b" % (method, target, version)]
    lines += [b"Host: " + host] if host is not None else []
    return b"\r\n".join([*lines, *headers, b"", body])


GET = request()
MISS = request(b"/page/unknown")
POST = request(b"/zoo/scope", b"Content-Length: 5", method=b"POST", body=b"abcde")
CLOSE = request(TARGET, b"Connection: close")
SLOW = request(b"/slow")
HALF = GET[:20]
BROWSER = request(
    TARGET,
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    b"Accept-Language: en-US,en;q=0.5",
    b"Accept-Encoding: gzip, deflate, br, zstd",
    b"Connection: keep-alive",
    b"Cookie: a=1; b=2",
    b"Sec-Fetch-Mode: navigate",
    b"Priority: u=0, i",
)

CASES: dict[str, Case] = {}


def case(name: str, hits: int, *segments: bytes) -> None:
    assert name not in CASES
    CASES[name] = Case(hits, [*segments])


# --- Targets --------------------------------------------------------------------------------------

# None of them is in WARM.
TARGETS = [
    b"http://localhost/page/list", b"http://other.invalid/page/list", b"HTTP://LOCALHOST/page/list", b"localhost:80",
    b"http://localhost", b"http://localhost?a=1", b"*", b"//page/list", b"/page//list", b"/page/./list",
    b"/page/../page/list", b"/page/list/", b"/page/%6cist", b"/%70age/list", b"/page/list%3Fa=1", b"/page%2Flist",
    b"/page/list?", b"/page/list??", b"/page/list#", b"/page/list#f", b"/page/list?a=1&b=2#f", b"/page/list?c=1",
    b"/page/list?a=1&b=2&", b"/page/list?a=1&&b=2", b"/page/list?a=1;b=2", b"/page/list?a=1&b=2?", b"/PAGE/LIST",
    b"/page/list?a=%31&b=2", b"/page/list?a=\xff", b"/page/caf\xc3\xa9", b"/page/caf\xe9", b"/page/caf%c3%a9",
    b"/page/caf%E9", b"/page/list\\", b"/page/list%00", b"/page/list%", b"/page/list%zz", b"page/list", b"/",
    b"/page/list|", b"/page/list;a", b"/page/list?a=" + b"x" * 5000, b"/page/" + b"x" * 66_000,
    b"/page/list?" + b"&" * 70_000, b"", b"/page/list\x00", b"/page/li\x7fst", b"/page/list?a=%zz", b"/page/list?a",
    b"\t/page/list", b"/page/list\t", b"/page/list HTTP/1.1 ", b"ws://localhost/page/list", b"/page/list\r",
    b"http://localhost//page/list", b"http://a@localhost:80/page/list?a=1#f", b"/page/list?a=?", b"/page/list?/#?",
]  # fmt: skip
for target in WARM:
    case(f"target {target.decode()}", 1, request(target))
    case(f"HEAD {target.decode()}", 1, request(target, method=b"HEAD"))
for target in TARGETS:
    case(f"target {target[:40]!r} of {len(target)}", 0, request(target))
case("two spaces before the target", 1, request(b" /page/list"))
case("two spaces after the target", 1, request(b"/page/list "))
case("one target, then another", 2, request(b"/page/list") + request(b"/page/small"))
case("fragment of a target", 1, request(b"/page/lis"), GET)

# --- Methods and versions -------------------------------------------------------------------------

for method in (
    b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE", b"CONNECT", b"get", b"Get", b"head", b"GETT",
    b"QUERY", b"PROPFIND", b"G", b"PRI", b"M-SEARCH", b"SOURCE", b"GET\x00", b"GET GET",
):  # fmt: skip
    case(f"method {method!r}", 0, request(method=method))
    case(f"method {method!r} after a hit", 1, GET, request(method=method))
for version in (b"0.9", b"1.0", b"1.2", b"2.0", b"2", b"1.1.1", b"1.01", b"11.1", b"", b"x"):
    case(f"version {version.decode()}", 0, request(version=version))
    case(
        f"version {version.decode()}, keep-alive",
        0,
        request(TARGET, b"Connection: keep-alive", version=version),
    )
    case(f"version {version.decode()} after a hit", 1, GET, request(version=version))
case(
    "HTTP/1.0 with keep-alive, then a hit",
    0,
    request(TARGET, b"Connection: keep-alive", version=b"1.0") + GET,
)
case("no version", 0, b"GET /page/list\r\n\r\n")
case("http in lower case", 0, GET.replace(b"HTTP", b"http"))
case("HTTP/2 preface", 0, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
case("TLS client hello", 0, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)))
case(
    "TLS client hello after a hit",
    1,
    GET,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)),
)

# --- Connections ----------------------------------------------------------------------------------

for value, hits in {
    b"close": 0, b"Close": 0, b"close, keep-alive": 0, b"keep-alive, close": 0, b"keep-alive": 1, b"Keep-Alive": 1,
    b"": 1, b"TE": 1, b"x, y": 1, b"Upgrade": 1, b"closed": 1, b" close": 0, b"close ": 0, b"foo,close": 0,
    b'"close"': 1, b"close\tx": 1,
}.items():  # fmt: skip
    case(f"connection {value!r}", hits, request(TARGET, b"Connection: " + value))
    case(f"connection {value!r} after a hit", hits + 1, GET + request(TARGET, b"connection: " + value))
    case(f"connection {value!r} before a hit", 2 * hits, request(TARGET, b"CONNECTION: " + value) + GET)
case("close on two lines", 0, request(TARGET, b"Connection: x", b"Connection: close"))
case("close, and what comes after it", 0, CLOSE + GET * 3)
case("close, and later what comes after it", 0, CLOSE, GET)
case("close after hits", 3, GET * 3 + CLOSE)
case("proxy-connection", 0, request(TARGET, b"Proxy-Connection: close"))
case("keep-alive field", 1, request(TARGET, b"Keep-Alive: timeout=5, max=1"))
UPGRADES = {
    "h2c": (
        b"Connection: Upgrade, HTTP2-Settings",
        b"Upgrade: h2c",
        b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA",
    ),
    "websocket": (
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Key: x",
        b"Sec-WebSocket-Version: 13",
    ),
    "unknown": (b"Connection: upgrade", b"Upgrade: x/1"),
}
for name, headers in UPGRADES.items():
    case(f"upgrade {name}", 0, request(TARGET, *headers))
    case(f"upgrade {name}, then a hit", 1, request(TARGET, *headers), GET)
    case(f"upgrade {name} and a hit", 0, request(TARGET, *headers) + GET)
    case(f"upgrade {name} between hits", 2, GET + request(TARGET, *headers), GET)
    case(f"upgrade {name} without connection", 1, request(TARGET, *headers[1:]))
    case(f"upgrade {name} of a miss, then a hit", 1, request(b"/zoo/scope", *headers), GET)

case("upgrade to nothing", 2, request(TARGET, b"Connection: upgrade", b"Upgrade:") + GET)

# --- Bodies ---------------------------------------------------------------------------------------

case("content-length 0", 1, request(TARGET, b"Content-Length: 0"))
case("content-length 5", 0, request(TARGET, b"Content-Length: 5", body=b"abcde"))
case("content-length 5 in pieces", 1, request(TARGET, b"Content-Length: 5", body=b"ab"), b"cde", GET)
case("body that looks like a hit", 1, request(TARGET, b"Content-Length: %d" % len(GET), body=GET) + GET, GET)
LARGE = request(b"/zoo/scope", b"Content-Length: 100000", method=b"POST", body=b"x" * 100_000)
case("large body between hits", 2, GET + LARGE, GET)
case("large body of a GET", 1, GET, request(TARGET, b"Content-Length: 100000", body=b"x" * 100_000))
case("chunked", 0, request(TARGET, b"Transfer-Encoding: chunked", body=b"3\r\nabc\r\n0\r\n\r\n"))
case("chunked with a trailer", 1, request(TARGET, b"TE: trailers", b"Transfer-Encoding: chunked",
     body=b"3\r\nabc\r\n0\r\nIf-None-Match: *\r\nHost: x\r\n\r\n"), GET)  # fmt: skip
CHUNK = b"%x\r\n%b\r\n0\r\n\r\n" % (len(GET), GET)
case("chunk that looks like a hit", 1, request(TARGET, b"Transfer-Encoding: chunked", body=CHUNK), GET)
case("chunked HEAD", 0, request(TARGET, b"Transfer-Encoding: chunked", method=b"HEAD", body=b"0\r\n\r\n"))
case("transfer-encoding identity", 0, request(TARGET, b"Transfer-Encoding: identity"))
case("transfer-encoding gzip", 0, request(TARGET, b"Transfer-Encoding: gzip"))
case("transfer-encoding and content-length", 0,
     request(TARGET, b"Transfer-Encoding: chunked", b"Content-Length: 5", body=b"0\r\n\r\n"))  # fmt: skip
case("content-length and transfer-encoding", 0,
     request(TARGET, b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"))  # fmt: skip
for value in (b"-1", b"+5", b"5, 5", b"0x5", b"", b"99999999999999999999", b"5 5", b"a"):
    case(f"content-length {value!r}", 0, request(TARGET, b"Content-Length: " + value, body=b"abcde"))
case("two content-lengths", 0, request(TARGET, b"Content-Length: 5", b"Content-Length: 5", body=b"abcde"))
case("expect", 0, request(TARGET, b"Expect: 100-continue"))
case("expect with a body", 0, request(TARGET, b"Expect: 100-continue", b"Content-Length: 5", body=b"abcde"))
case("expect what nobody does", 0, request(TARGET, b"Expect: x"))
case("expectation of another, then a hit", 1,
     request(b"/zoo/scope", b"Expect: 100-continue", b"Content-Length: 3", method=b"POST"), b"abc", GET)  # fmt: skip
case("hit after an unread expectation", 1,
     request(b"/zoo/early", b"Expect: 100-continue", b"Content-Length: 3", method=b"POST"), b"abc", GET)  # fmt: skip
case("body after its answer, then a hit", 1,
     request(b"/zoo/early", b"Content-Length: 5", method=b"POST"), b"abc", b"de" + GET)  # fmt: skip

# --- Pipelines ------------------------------------------------------------------------------------

for count in (2, 3, 10, 50):
    case(f"{count} hits", count, GET * count)
case("hits of several pages", 6, b"".join(map(request, WARM[:6])))
case("hit, miss, hit", 1, GET + MISS + GET)
case("miss, hit", 0, MISS + GET)
case("miss, later a hit", 1, MISS, GET)
case("misses and hits", 2, GET + MISS * 2, GET + MISS + GET * 2)
case("POST between hits", 1, GET + POST + GET)
case("POST between hits, later", 2, GET + POST, GET)
case("hit, HEAD, conditional, coding", 4, GET + request(method=b"HEAD") + request(TARGET, b"If-None-Match: *")
     + request(TARGET, b"Accept-Encoding: gzip"))  # fmt: skip
case("half a request after a hit", 2, GET + GET[:20], GET[20:])
case("half a header after a hit", 2, GET + GET[:-10], GET[-10:])
case("half a miss after a hit", 1, GET + MISS[:20], MISS[20:])
case("half a body after a hit", 2, GET + POST[:-3], POST[-3:] + GET, GET)
case("half a request after a miss", 1, MISS + GET[:20], GET[20:])
case("a hit and an incomplete request", 1, GET + GET[:-2])
case("hit by bytes", 1, *(GET[at : at + 1] for at in range(len(GET))))
case("two hits by seven bytes", 2, *((GET * 2)[at : at + 7] for at in range(0, 2 * len(GET), 7)))
case("empty lines", 1, b"\r\n\r\n" + GET)
case("empty lines between hits", 2, GET + b"\r\n\r\n" + GET)
case("empty lines between hits, later", 2, GET + b"\r\n", b"\r", b"\n", GET)
case("a lone line feed before a hit", 1, b"\n" + GET)
case("a lone carriage return between hits", 2, GET + b"\r", GET)
case("garbage after a hit", 1, GET, b"\x00\x01\x02")
case("garbage after hits", 3, GET * 2, GET, b"garbage\r\n\r\n")
case("space before a request", 1, GET, b" " + GET)

HEAD = request(method=b"HEAD")
UNCHANGED = request(TARGET, b"If-None-Match: *")
case("the same again", 4, GET, GET, GET, GET)
case("HEAD again", 4, HEAD, HEAD, GET, HEAD)
case("conditional again", 4, UNCHANGED, UNCHANGED, GET, UNCHANGED)
case("two by two", 6, GET * 2, GET * 2, GET * 2)
case("the same again after a miss", 3, GET, GET, MISS, GET)
case("the same again with a miss", 3, GET, GET, GET + MISS, MISS, MISS)
case("the same again after half of another", 4, GET, GET, GET[:9], GET[9:], GET)
case("the same again behind half of another", 2, GET, GET, MISS[:-2] + b"X-Test: ", GET)
case("the same again inside of its own kind", 1, GET, GET[:-2] + b"X-Test: ", GET)
case("an end again", 1, GET[:9], GET[9:], GET[9:])
case("an end again after a hit", 2, GET + GET[:9], GET[9:], GET[9:])
case("HEAD again after another method", 2, HEAD, request(method=b"OPTIONS"), HEAD)
case("the same again after an upgrade", 2, GET, request(TARGET, *UPGRADES["h2c"], method=b"HEAD"), GET)
case("the same again as content", 2, GET, GET, request(b"/zoo/scope", b"Content-Length: %d" % len(GET)), GET)
case("halves again", 2, GET[:9], GET[9:], GET[:9], GET[9:])
case("an end and a beginning again", 3, GET[:9], GET[9:] + GET[:9], GET[9:] + GET[:9], GET[9:])
case("the same again with empty lines", 4, GET + b"\r\n", GET + b"\r\n", GET + b"\r", GET + b"\r")
case("empty lines and the same again", 4, b"\r\n" + GET, b"\r\n" + GET, b"\n" + GET, b"\n" + GET)
case("the same again after garbage", 2, GET, GET, GET[:-1] + b"\x00")
case("a miss again", 1, MISS, MISS, GET)
case("the same again, but closed in between", 2, GET, GET, CLOSE, GET)
case("long and the same again", 3, *[request(TARGET, b"X-Test: " + b"x" * 5000)] * 3)

# --- Hosts ----------------------------------------------------------------------------------------

for host, hits in {
    b"localhost:8000": 1, b"LOCALHOST": 1, b"localhost.": 1, b"127.0.0.1": 1, b"127.0.0.1:0": 1, b"localhost:": 0,
    b"other.invalid": 0, b"": 0, b"localhost:x": 0, b"localhost:99999999": 1, b"a@localhost": 0, b"localhost/": 0,
    b"localhost other.invalid": 0, b"localhost, localhost": 0, b"[::1]": 0, b"localhost\x80": 0, b"loc\xc3\xa4l": 0,
    b"localhost\t": 0, b"  localhost": 1, b"x" * 70_000: 0, b"http://localhost": 0, b"localhost#": 0,
    b".localhost": 0,
}.items():  # fmt: skip
    case(f"host {host[:40]!r}", hits, request(host=host))
case("no host", 0, request(host=None))
case("no host after a hit", 1, GET + request(host=None))
case("two hosts", 0, request(TARGET, b"Host: localhost"))
case("two hosts, one foreign", 0, request(TARGET, b"Host: other.invalid"))
case("host last", 1, request(TARGET, b"Accept: */*", b"Host: localhost", host=None))
case("forwarded", 1, request(TARGET, b"X-Forwarded-Host: other.invalid", b"X-Forwarded-Proto: https",
     b"X-Forwarded-For: 1.2.3.4", b"Forwarded: host=other.invalid"))  # fmt: skip

# --- Fields ---------------------------------------------------------------------------------------

case("browser", 1, BROWSER)
FIELDS: dict[str, tuple[int, list[bytes]]] = {
    "authorization": (0, [b"Authorization: Bearer x"]),
    "empty authorization": (0, [b"Authorization:"]),
    "authorization in odd case": (0, [b"aUTHORIZATION: x"]),
    "key": (0, [b"X-API-Key: x"]),
    "cookie": (1, [b"Cookie: session=1"]),
    "range": (1, [b"Range: bytes=0-9"]),
    "if-range": (1, [b"Range: bytes=0-9", b'If-Range: "x"']),
    "no-cache": (1, [b"Cache-Control: no-cache"]),
    "no-store": (1, [b"Cache-Control: no-store, max-age=0"]),
    "only-if-cached": (1, [b"Cache-Control: only-if-cached"]),
    "pragma": (1, [b"Pragma: no-cache"]),
    "if-match": (0, [b'If-Match: "x"']),
    "if-unmodified-since": (0, [b"If-Unmodified-Since: " + DATE.encode()]),
    "method override": (1, [b"X-HTTP-Method-Override: DELETE"]),
    "odd case": (1, [b"aCCEPT-eNCODING: gzip"]),
    "no space": (1, [b"Accept-Encoding:gzip"]),
    "much space": (1, [b"Accept-Encoding: \t  gzip \t "]),
    "underscore": (1, [b"Accept_Encoding: gzip"]),
    "obs-fold": (0, [b"Accept-Encoding: gzip,", b" zstd"]),
    "obs-fold with a tab": (0, [b"X-Test: a", b"\tb"]),
    "space before the colon": (0, [b"X-Test : a"]),
    "no colon": (0, [b"X-Test"]),
    "empty name": (0, [b": a"]),
    "NUL in a value": (0, [b"X-Test: a\x00b"]),
    "NUL in a name": (0, [b"X-\x00Test: a"]),
    "control character in a value": (0, [b"X-Test: a\x01b"]),
    "DEL in a value": (0, [b"X-Test: a\x7fb"]),
    "bytes in a value": (1, [b"X-Test: \x80\xff"]),
    "bytes in a name": (0, [b"X-T\xe9st: a"]),
    "carriage return in a value": (0, [b"X-Test: a\rb"]),
    "many": (1, [*(b"X-Test-%d: %d" % (n, n) for n in range(99))]),
    "too many": (0, [*(b"X-Test-%d: %d" % (n, n) for n in range(1000))]),
    "many of one name": (1, [*[b"X-Test: a"] * 99]),
    "too many of one name": (0, [*[b"X-Test: a"] * 100]),
    "long": (0, [b"X-Test: " + b"x" * 32_000]),
    "too long": (0, [b"X-Test: " + b"x" * 70_000]),
    "long name": (0, [b"X-" + b"x" * 32_000 + b": a"]),
    "too long name": (0, [b"X-" + b"x" * 70_000 + b": a"]),
    "long accept-encoding": (1, [b"Accept-Encoding: gzip" + b", x" * 100]),
}
for name, (hits, fields) in FIELDS.items():
    case(f"field: {name}", hits, request(TARGET, *fields))
case("bare line feeds", 0, GET.replace(b"\r\n", b"\n"))
case("bare line feeds after a hit", 1, GET, GET.replace(b"\r\n", b"\n"))
case("bare carriage returns", 0, GET.replace(b"\r\n", b"\r"))
case("line feed before the end", 0, b"GET /page/list HTTP/1.1\r\nHost: localhost\n\r\n")
case(
    "fields of one request do not reach the next",
    4,
    BROWSER + GET + request(TARGET, b"If-None-Match: *") + GET,
)

# --- Conditions and codings -----------------------------------------------------------------------

for page in (b"/page/list", b"/page/dated", b"/page/small"):
    for value in (
        b"*", b'"x"', b'W/"x"', b'"8c2402f3ba4af3ef310f44ca"', b'W/"8c2402f3ba4af3ef310f44ca"',
        b'"x", "8c2402f3ba4af3ef310f44ca"', b'"x","8c2402f3ba4af3ef310f44ca-gzip"', b"8c2402f3ba4af3ef310f44ca",
        b'"8c2402f3ba4af3ef310f44ca', b"", b",", b'""', b'"\xff"', b'"8C2402F3BA4AF3EF310F44CA"', b"*, *",
    ):  # fmt: skip
        case(f"{page.decode()} if-none-match {value!r}", 1, request(page, b"If-None-Match: " + value))
    for value in (
        DATE.encode(), b"Wed, 21 Oct 2015 07:27:59 GMT", b"Wed, 21 Oct 2015 07:28:01 GMT", b"x", b"", b"0", b"-1",
        b"Wednesday, 21-Oct-15 07:28:00 GMT", b"Wed Oct 21 07:28:00 2015", b"Wed, 99 Oct 2015 07:28:00 GMT",
        b"Wed, 21 Oct 99999 07:28:00 GMT", b"Wed, 21 Oct 2015 07:28:00 +99999999999", b"21 Oct 2015", b"Wed,",
        b"Wed, 21 Oct 2015 07:28:00 -0000", b"\xff", b"1 1 1 1 1 1", b"Wed, 21 Oct 2015 07:28:00 GMT, x",
    ):  # fmt: skip
        case(f"{page.decode()} if-modified-since {value!r}", 1, request(page, b"If-Modified-Since: " + value))
case("none-match overrides since", 1,
     request(b"/page/dated", b'If-None-Match: "x"', b"If-Modified-Since: " + DATE.encode()))  # fmt: skip
case("none-match on two lines", 1,
     request(TARGET, b'If-None-Match: "x"', b'If-None-Match: "8c2402f3ba4af3ef310f44ca"'))  # fmt: skip
case("conditional HEAD", 1, request(TARGET, b"If-None-Match: *", method=b"HEAD"))
for value in (
    b"gzip", b"zstd", b"br", b"identity", b"*", b"", b"gzip, zstd", b"zstd;q=0.5, gzip", b"gzip;q=0", b"*;q=0",
    b"identity;q=0", b"identity;q=0, *;q=0", b"gzip;q=1.0;x=y", b"GZIP", b"gzip;q=x", b"gzip;q=nan", b"gzip;q=1e0",
    b"x-gzip", b",,,", b";", b"gzip;q=0.5, identity;q=0.6", b"gzip ; q = 0.9", b"\xff", b"gzip;q=-1", b"gzip;q=2",
):  # fmt: skip
    case(f"accept-encoding {value!r}", 1, request(TARGET, b"Accept-Encoding: " + value))
    case(f"accept-encoding {value!r} of an image", 1, request(b"/page/image", b"Accept-Encoding: " + value))
case("accept-encoding on two lines", 1, request(TARGET, b"Accept-Encoding: gzip", b"Accept-Encoding: zstd"))

# --- Applications that break rules, between hits --------------------------------------------------

for kind in (
    "scope",
    "early",
    "late",
    "close",
    "chunked",
    "short",
    "long",
    "partial",
    "raise",
    "nothing",
    "split",
):
    path = b"/zoo/" + kind.encode()
    ends = kind in ("close", "short", "long", "partial", "nothing", "split")
    case(f"zoo {kind} between hits", 1 if ends else 2, GET + request(path), GET)
    case(f"zoo {kind} and a hit", 1, GET + request(path) + GET)
    case(f"zoo {kind} HEAD", 1, GET + request(path, method=b"HEAD"))
