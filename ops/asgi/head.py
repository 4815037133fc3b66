"""HEAD is GET without the content (RFC 9110, section 9.3.2), for every endpoint and without its doing."""

from collections.abc import Awaitable

from ops.asgi.protocol import Application, Message, Receive, Scope, Send


class Head:
    """Answers HEAD requests with the header of the application's answer to GET."""

    def __init__(self, application: Application) -> None:
        self.application = application

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            return self.application({**scope, "method": "GET"}, receive, _without_content(send))
        return self.application(scope, receive, send)


def _without_content(send: Send) -> Send:
    async def send_head(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return send_head
