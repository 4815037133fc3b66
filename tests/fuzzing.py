"""Schemathesis, by its engine: its own plugin fails with pytest 9.2, so pyproject.toml leaves that out."""

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from schemathesis import Case, HookContext, Response, SerializationContext, openapi, serializer
from schemathesis.config import SchemathesisConfig
from schemathesis.core.failures import Failure
from schemathesis.engine import Status, events, from_schema
from schemathesis.engine.recorder import ScenarioRecorder

from tests.service import PATIENCE

# What JSON Schema cannot say: which cursors there are, which filters an index serves together, which row there is,
# which Idempotency-Key was sent before, which currencies have a rate.
INHERENT = {
    *("invalid_cursor", "unsupported_combination", "precondition_failed", "idempotency_key_reused"),
    "unknown_currency",
}
# The same of a field: which rows there are, rules between fields and between items, and texts in JSON of any form.
INHERENT_FAULTS = {"no_such_row", "repeated", "encoding", "unsupported_merge"}
INHERENT_FAULTS |= {"constraint", "backwards", "low_above_high"}
# How the service refuses what the document forbids: 414 and 431 if that is longer than anything may be.
REFUSALS = ["400", "401", "404", "405", "412", "414", "415", "422", "428", "431"]


# `make fuzz` sets them: how many examples each operation gets, and which.
EXAMPLES = int(os.environ.get("EXAMPLES", "0"))
SEED = int(os.environ.get("SEED", "1"))


class Coverage:
    """Which parts of an OpenAPI document were met: each operation's parameters and answers."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.missing: set[tuple[str, str]] = set()  # operation, and a parameter's name or a status
        self._paths: list[tuple[str, re.Pattern[str]]] = []
        # A path without parameters comes first, as it does among the routes.
        for path, operations in sorted(document["paths"].items(), key=lambda each: each[0].count("{")):
            self._paths.append((path, re.compile(re.sub(r"\{\w+\}", "[^/]+", path))))
            for method, operation in operations.items():
                label = f"{method.upper()} {path}"
                parts = [each["name"] for each in operation.get("parameters", ())]
                self.missing |= {(label, part) for part in (*parts, *map(str, operation["responses"]))}

    def see(self, method: str, url: str, fields: Collection[str], status: int) -> None:
        """Note an exchange: `fields` are the names of the request's header fields."""
        where = urlsplit(url)
        sent = {name.lower() for name in (*fields, *parse_qs(where.query, keep_blank_values=True))}
        for path, pattern in self._paths:
            if pattern.fullmatch(where.path):
                label = f"{method} {path}"
                sent |= {name.lower() for name in re.findall(r"\{(\w+)\}", path)}
                known = {part for one, part in self.missing if one == label}
                answered = str(status) if str(status) in known else "default"
                self.missing -= {
                    (label, part) for part in known if part.lower() in sent or part in (answered, str(status))
                }
                break


@dataclass
class Findings:
    requests: int = 0
    phases: set[str] = field(default_factory=set)
    operations: set[str] = field(default_factory=set)
    checks: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)


def operations_of(resource: str, document: Mapping[str, Any]) -> dict[str, Any]:
    """The paths of a document with the operations of one resource, whose package their ids begin with."""
    paths = {
        path: {m: each for m, each in operations.items() if each["operationId"].startswith(f"{resource}_")}
        for path, operations in document["paths"].items()
    }
    return {"paths": {path: operations for path, operations in paths.items() if operations}}


def explore(
    url: str, *, resource: str = "", examples: int = 10, key: str = "", coverage: Coverage | None = None
) -> Findings:
    """Send what the document at `url` allows and what it forbids, and see whether each answer is as it says.

    `resource` is the package whose operations are meant; without, all are. `key` is an API key for the operations
    that need one.
    """
    config = SchemathesisConfig.from_dict(
        {
            "seed": SEED,
            "auth": {"openapi": {"bearer": {"bearer": key}}} if key else {},
            "request-timeout": PATIENCE,
            "cache": {"enabled": False},
            "generation": {
                "no-shrink": True,
                "database": "none",
                "max-examples": EXAMPLES or examples,
                "deterministic": SEED == 1,
            },
            "checks": {
                "negative_data_rejection": {"expected-statuses": REFUSALS},
                "missing_required_header": {"expected-statuses": REFUSALS},
            },
        }
    )
    whole = openapi.from_url(url, config=config, timeout=PATIENCE)
    schema = whole.include(operation_id_regex=f"^{resource}_") if resource else whole
    schema.hook(filter_failure)
    found = Findings()
    for event in from_schema(schema).execute():
        if isinstance(event, events.ScenarioFinished):
            recorder = event.recorder
            found.requests += len(recorder.interactions)
            found.phases.add(event.phase.value)
            found.operations.add(recorder.label)
            found.checks |= {check.name for checks in recorder.checks.values() for check in checks}
            found.wrong += _failures(recorder)
            for exchange in recorder.interactions.values():
                request, answer = exchange.request, exchange.response
                if coverage and answer:
                    coverage.see(request.method, request.uri, request.headers, answer.status_code)
        elif isinstance(event, events.NonFatalError):
            found.wrong.append(f"{event.label}: {event.value!r}")
        elif isinstance(event, events.FatalError):
            raise event.exception
    return found


@serializer("application/x-ndjson", "application/jsonl")
def one_line(context: SerializationContext, value: Any) -> bytes:
    """The document has the schema of a line."""
    return value if isinstance(value, bytes) else json.dumps(value).encode() + b"\n"


def filter_failure(context: HookContext, failure: Failure, case: Case[Any], response: Response) -> bool:
    """Tell whether it is one, and none of those that the document cannot foresee."""
    if "positive_data_acceptance" not in failure.checks or response.status_code not in (412, 422):
        return True
    if case.media_type == "text/csv":  # of which the document says that it is a text
        return False
    problem = json.loads(response.content)
    return problem["code"] not in INHERENT and not all(
        fault["code"] in INHERENT_FAULTS
        # How many digits a number has.
        or (fault["code"] == "out_of_range" and isinstance(_blamed(case.body, fault["parameter"]), float))
        for fault in problem.get("errors") or [problem]
    )


def _blamed(content: Any, parameter: str) -> Any:
    """The value that a fault names: `low_price`, `items[17].low_price`, or `lines[1].low_price` of the only line."""
    place, _, name = parameter.rpartition(".")
    if isinstance(content, list):
        content = content[int(place[place.index("[") + 1 : -1])]
    return content.get(name) if isinstance(content, dict) else None


def _failures(recorder: ScenarioRecorder) -> Iterator[str]:
    for case, checks in recorder.checks.items():
        for check in checks:
            if check.status != Status.SUCCESS:
                answer = recorder.interactions[case].response
                info = check.failure_info
                yield "\n".join(
                    [
                        f"{recorder.label}: {check.name}",
                        *([str(info.failure), info.code_sample] if info else []),
                        answer.content.decode(errors="replace")[:500] if answer else "no answer",
                    ]
                )
