"""A hundred users: each asks again once it has its answer.

`docker compose up locust` shows their requests a second and response times as charts. A closed loop finds how much
the service can do; budget.js measures whether it keeps its budget at a given rate.
"""

import random
from typing import Any

from locust import FastHttpUser, constant, task


class Reader(FastHttpUser):
    """Leafs through a list of the service, of 100 rows a page, and now and then looks at one of them."""

    wait_time = constant(0)
    path: str  # of the list
    item: str | None  # that of a row, with {id}
    two: str  # fields
    rows: list[int]
    next_page: str | None

    def on_start(self) -> None:
        """Take the first list of the OpenAPI document."""
        paths: dict[str, Any] = self.client.get("/api/openapi.json").json()["paths"]
        for path, methods in paths.items():
            asked = {each["name"]: each["schema"] for each in methods.get("get", {}).get("parameters", ())}
            if "cursor" in asked:
                self.path = path
                self.item = f"{path}/{{id}}" if any(each.startswith(f"{path}/{{") for each in paths) else None
                self.two = ",".join(asked["fields"]["default"].split(",")[1:3])
                self.first_page()
                return
        raise SystemExit("the service has no list: /api/openapi.json names none")

    @task(1)
    def first_page(self) -> None:
        self.turn_to(self.path)

    @task(5)
    def following_page(self) -> None:
        """Names with a cursor would be a row of the statistics each."""
        self.turn_to(self.next_page or self.path, name=f"{self.path}?cursor=...")

    @task(3)
    def row(self) -> None:
        if self.item and self.rows:
            self.client.get(self.item.format(id=random.choice(self.rows)), name=self.item)

    @task(1)
    def two_fields(self) -> None:
        """As one array each."""
        self.client.get(f"{self.path}?fields={self.two}&layout=columns")

    def turn_to(self, path: str, name: str | None = None) -> None:
        page = self.client.get(path, name=name).json()
        self.rows = [row["id"] for row in page["results"]]
        self.next_page = page["next"]
