"""A worker opens resources before its first request and closes them after its last: ASGI's lifespan."""

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack

from ops.asgi.hits import always
from ops.asgi.types import Application, Receive, Scope, Send
from ops.telemetry.readiness import readiness

logger = logging.getLogger(__name__)

Resource = Callable[[], AbstractAsyncContextManager[object]]


class Lifespan:
    """Holds `resources` while the worker serves `application`.

    The resources are opened in turn before the server accepts connections, and closed in reverse order once it has
    drained. If a resource fails to open, the earlier ones are closed again, and the server stops with one line in the
    log that names the failed resource.

    Under a server without lifespan, such as daphne, requests are answered without the resources, and one line in the
    log says so.
    """

    def __init__(self, application: Application, *resources: Resource) -> None:
        self.application = application
        self.resources = resources
        self._serve: Application = self._serve_without_start

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hold the resources from start-up to shutdown, or serve a request.

        This is a coroutine function, since servers recognise ASGI 3 by that
        (asgiref.compatibility.is_double_callable).
        """
        if scope["type"] != "lifespan":
            await self._serve(scope, receive, send)
            return
        self._serve = self.application
        await receive()
        phase, name = "startup", ""
        try:
            async with AsyncExitStack() as stack:
                for resource in self.resources:
                    name = f" of {resource.__name__}"
                    await stack.enter_async_context(resource())
                await send({"type": "lifespan.startup.complete"})
                phase, name = "shutdown", ""
                await receive()
        except Exception as error:
            logger.debug("The traceback of the line that follows", exc_info=True)
            line = f"The {phase}{name} failed: {type(error).__name__}: {error}"
            await send({"type": f"lifespan.{phase}.failed", "message": " ".join(line.split())})
        else:
            await send({"type": "lifespan.shutdown.complete"})
        finally:
            self._serve = self._serve_without_start

    async def _serve_without_start(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the first request of a server that has announced no start-up, and count the worker as started."""
        self._serve = self.application
        readiness.started = True
        names = ", ".join(resource.__name__ for resource in self.resources)
        logger.warning("The server has no ASGI lifespan. It serves without %s: slower, with threads", names)
        await self.application(scope, receive, send)

    admits = always
