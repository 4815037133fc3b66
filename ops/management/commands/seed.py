"""Made-up rows for every resource that has a command for them, for `make up`, `make lab` and compose.yaml."""

from typing import Any

from django.apps import apps
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandParser


class Command(BaseCommand):
    help = (
        "Run the command that an AppConfig names as its `seed`, which adds made-up rows until there are ROWS."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--rows", type=int, default=100_000, help="how many rows to have (%(default)s)")

    def handle(self, *_args: Any, rows: int, **_options: Any) -> None:
        commands = [app.seed for app in apps.get_app_configs() if hasattr(app, "seed")]
        for command in commands:
            call_command(command, rows=rows, stdout=self.stdout)
        if not commands:
            self.stdout.write("There is nothing to seed: no AppConfig names a command as its `seed`.")
