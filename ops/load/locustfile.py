"""A hundred users, as the benchmark that this project started from had them: each asks again once it has its answer.

`docker compose up locust` shows their requests a second and response times as charts. A closed loop finds how much
the service can do; whether it keeps its budget at a given rate is what budget.js asks.
"""

import random

from locust import FastHttpUser, constant, task


class Shopper(FastHttpUser):
    """Leafs through pages of 100 products, and now and then looks at one of them."""

    wait_time = constant(0)
    products: list[int]
    next_page: str | None

    def on_start(self) -> None:
        self.first_page()

    @task(1)
    def first_page(self) -> None:
        self.turn_to("/api/products")

    @task(5)
    def following_page(self) -> None:
        """Names with a cursor would be a row of the statistics each."""
        self.turn_to(self.next_page or "/api/products", name="/api/products?cursor=...")

    @task(3)
    def product(self) -> None:
        self.client.get(f"/api/products/{random.choice(self.products)}", name="/api/products/{id}")

    @task(1)
    def two_fields(self) -> None:
        """The benchmark's two fields, as one array each."""
        self.client.get("/api/products?fields=low_price,high_price&layout=columns")

    def turn_to(self, path: str, name: str | None = None) -> None:
        page = self.client.get(path, name=name).json()
        self.products = [product["id"] for product in page["results"]]
        self.next_page = page["next"]
