"""orjson in place of the standard library's json, where Python reads or writes JSON at all.

It is five times as fast, takes UTF-8 only, refuses NaN and Infinity, which are no JSON, and bounds the depth.
"""

from typing import Any

import orjson
from django.http import HttpRequest
from ninja.parser import Parser
from ninja.renderers import BaseRenderer
from ninja.responses import NinjaJSONEncoder

from ops.instruments.stopwatch import SERIALISATION

# Dates and keys as Ninja's own renderer writes them.
OPTIONS = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_NON_STR_KEYS


class OrjsonParser(Parser):
    def parse_body(self, request: HttpRequest) -> Any:
        """Raises orjson.JSONDecodeError, which Ninja answers with 400."""
        return orjson.loads(request.body)


class OrjsonRenderer(BaseRenderer):
    media_type = "application/json"

    def render(self, request: HttpRequest, data: Any, *, response_status: int) -> bytes:
        with SERIALISATION:
            return orjson.dumps(data, default=NinjaJSONEncoder().default, option=OPTIONS)
