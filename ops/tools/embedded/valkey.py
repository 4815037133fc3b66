"""The private Valkey: a cache in memory only, reached through a unix socket only."""

from typing import IO
from urllib.parse import quote

from ops.tools.embedded.daemon import SocketServer
from ops.tools.embedded.paths import valkey_program


class Valkey(SocketServer):
    name = "valkey"
    socket_name = "valkey.sock"

    @property
    def url(self) -> str:
        return f"unix://{quote(str(self.sockets / self.socket_name))}?db=0"

    def launch(self, lock: IO[bytes]) -> None:
        settings = {
            "port": "0",
            "unixsocket": str(self.sockets / self.socket_name),
            "unixsocketperm": "700",
            "dir": str(self.directory),
            "pidfile": str(self.pid_file),
            "logfile": str(self.log),
            "daemonize": "yes",
            "save": "",  # no snapshot: a cache that came back could be older than its database
        }
        words = (word for name, value in settings.items() for word in (f"--{name}", value))
        self.run(lock, valkey_program(), *words)
