"""What a worker opens before its first request and closes after its last: ASGI's lifespan, which Django refuses."""

import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack

from ops.asgi.protocol import Application, Receive, Scope, Send

logger = logging.getLogger(__name__)

Resource = Callable[[], AbstractAsyncContextManager[object]]


class Lifespan:
    """An application whose worker holds `resources` while it serves `application`.

    Each is entered in turn before the server accepts, and left in reverse order once it has drained. If one
    fails to open, those before it are closed again and the server stops with one line that names it.
    """

    def __init__(self, application: Application, *resources: Resource) -> None:
        self.application = application
        self.resources = resources

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "lifespan":
            return self._live(receive, send)
        return self.application(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
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
