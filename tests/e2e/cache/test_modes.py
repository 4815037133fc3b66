"""PAGE_CACHE=on, l2 and off answer the same, and side by side none answers with the old."""

import asyncio

import pytest

from tests.e2e.cache.client import Address, Answer, load
from tests.e2e.cache.fleet import Fleet

PATHS = [
    *("/api/products", "/api/products?limit=7&sort=-low_price&fields=category,id&layout=columns"),
    *("/api/products/6", "/api/products/6?fields=id", "/api/products/99999999", "/api/products/x"),
    *("/api/products?limit=0", "/api/products?colour=red", "/api/categories?limit=3", "/api/nothing"),
]
OF_THE_CACHE = {"age", "cache-control", "cache-status", "date", "etag", "vary"}
OF_THE_REQUEST = {"x-request-id", "x-request-duration", "server-timing"}


@pytest.mark.parametrize("path", PATHS)
def test_same_answers(mixed: Fleet, path: str) -> None:
    answers = []
    for member in mixed.members * 2:
        response = member.service.client.get(path, headers={"accept-encoding": "identity"})
        fields = {
            name: value
            for name, value in response.headers.items()
            if name not in OF_THE_CACHE | OF_THE_REQUEST
        }
        answers.append((response.status_code, fields, response.content))
    assert answers == [answers[0]] * len(answers)


def test_a_mixed_fleet_is_coherent(mixed: Fleet) -> None:
    """Written through each of them in turn, under load; seen by all within a second, and never unseen."""
    page, written = "/api/products/6", []

    async def scenario() -> list[Answer]:
        async with load(mixed.addresses, [page], 0.003) as answered:
            for number in range(12):
                await asyncio.sleep(0.05)
                writer = mixed.members[number % len(mixed.members)]
                way = ("native", "orm")[number % 2]
                response = await asyncio.to_thread(writer.post, f"/tests/{way}/6")
                written.append((asyncio.get_running_loop().time(), int(response.text), writer.address))
            await asyncio.sleep(0.2)
        return answered.answers

    last: dict[Address, int] = {}
    for answer in asyncio.run(scenario()):
        known = [
            v for at, v, writer in written if at < answer.began - (0 if writer == answer.address else 1.0)
        ]
        assert answer.status == 200
        assert answer.value >= max([last.get(answer.address, 0), *known])
        last[answer.address] = answer.value
    assert set(last.values()) == {written[-1][1]}
