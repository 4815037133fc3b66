"""Stand-ins for the services that this one calls: JSON files of the resources, served on a port of their own.

The address of `products/stand_ins/rates.json` becomes RATES_URL, unless the environment has a RATES_URL. So `make up`
needs no network.
"""

import shutil
import socket
import subprocess
from contextlib import suppress
from typing import IO

from ops.tools.embedded.daemon import Daemon
from ops.tools.embedded.paths import LOCAL, PYTHON, ROOT
from ops.tools.embedded.servers import is_given

LOOPBACK = "127.0.0.1"


class StandIns(Daemon):
    """Python's own file server, on a free port. One that a killed supervisor left is stopped (up.py), not adopted."""

    name = "stand-ins"
    process: "subprocess.Popen[bytes] | None" = None

    def __init__(self) -> None:
        super().__init__(LOCAL)
        found = {f"{file.stem.upper()}_URL": file for file in sorted(ROOT.glob("[!.]*/stand_ins/*.json"))}
        self.files = {variable: file for variable, file in found.items() if not is_given(variable)}
        self.directory = LOCAL / self.name
        with socket.socket() as probe:
            probe.bind((LOOPBACK, 0))
            self.port: int = probe.getsockname()[1]

    @property
    def environment(self) -> dict[str, str]:
        """The addresses, in the variables that config/settings.py reads."""
        return {name: f"http://{LOOPBACK}:{self.port}/{file.name}" for name, file in self.files.items()}

    def launch(self, lock: IO[bytes]) -> None:
        self.directory.mkdir(exist_ok=True)
        for file in self.files.values():
            shutil.copy2(file, self.directory)
        command = [PYTHON, "-m", "http.server", "--protocol", "HTTP/1.1", "--bind", LOOPBACK]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--directory", str(self.directory), str(self.port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[lock.fileno()],
                start_new_session=True,
            )
        self.pid_file.write_text(str(self.process.pid))

    def stop(self) -> None:
        super().stop()
        if self.process:
            self.process.wait()

    def answers(self) -> bool:
        with suppress(OSError), socket.create_connection((LOOPBACK, self.port), timeout=1):
            return True
        return False
