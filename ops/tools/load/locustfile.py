"""A hundred users; each sends its next request as soon as it has its answer (a closed loop).

`docker compose up locust` shows their requests a second and response times as charts. A closed loop finds the most
that the service can do; budget.js measures whether the service keeps its budget at a given rate.
"""

import random
from typing import Any

from locust import FastHttpUser, constant, task


class Reader(FastHttpUser):
    """Pages through a list of the service, 100 rows a page, and now and then reads a single row."""

    wait_time = constant(0)
    path: str  # of the list
    item: str | None  # the path of a row, with {id}, or None if the document has none
    two: str  # the names of two fields, with a comma between them
    rows: list[int]  # ids on the last page
    next_page: str | None

    def on_start(self) -> None:
        """Find the first list in the OpenAPI document, and read its first page."""
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
        """Read the next page, with one name for all cursors: each name has a row of the statistics."""
        self.turn_to(self.next_page or self.path, name=f"{self.path}?cursor=...")

    @task(3)
    def row(self) -> None:
        if self.item and self.rows:
            self.client.get(self.item.format(id=random.choice(self.rows)), name=self.item)

    @task(1)
    def two_fields(self) -> None:
        """Read two fields of the first page, each as one array."""
        self.client.get(f"{self.path}?fields={self.two}&layout=columns")

    def turn_to(self, path: str, name: str | None = None) -> None:
        """Read a page, and keep its ids and the path of the page after it."""
        page = self.client.get(path, name=name).json()
        self.rows = [row["id"] for row in page["results"]]
        self.next_page = page["next"]
