"""A server on a real socket that answers early, late, wrongly or not at all."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from socketserver import StreamRequestHandler, ThreadingTCPServer

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
Answer = Callable[[bytes], bytes]


class Server(ThreadingTCPServer):
    request_queue_size = 128


@contextmanager
def server(answer: Answer) -> Iterator[str]:
    """A server that writes what `answer` makes of each request's bytes, and closes where that is empty."""

    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            while text := self.rfile.readline():
                length = 0
                while (line := self.rfile.readline()) not in (b"\r\n", b""):
                    text += line
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                reply = answer(text + b"\r\n" + self.rfile.read(length))
                if not reply:
                    return
                self.wfile.write(reply)

    with Server(("127.0.0.1", 0), Handler) as listener:
        thread = threading.Thread(target=listener.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.server_address[1]}"
        finally:
            listener.shutdown()
            thread.join()
