"""The service while its metrics are scraped ten times a second: `python -m ops.tools.lab.scraped`, then as gunicorn.

Prometheus asks every 5 seconds (ops/monitoring/prometheus/prometheus.yml); fifty times as often shows whether
that is felt.
"""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from urllib.request import urlopen

EVERY = 0.1  # seconds
PATIENCE = 5.0  # seconds for one scrape: as long as the exporter's own deadline


def main() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", *sys.argv[1:]], env={**os.environ, "METRICS_PORT": str(port)}
    )
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    counts = {True: 0, False: 0}
    while server.poll() is None:
        began = time.monotonic()
        # Not answered are those before the exporter listens, two seconds after the service, and after it has ended.
        try:
            with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as answer:
                is_answered = bool(answer.read())
        except (OSError, http.client.HTTPException):
            is_answered = False
        counts[is_answered] += 1
        time.sleep(max(0.0, began + EVERY - time.monotonic()))
    sys.stdout.write(f"{counts[True]} scrapes answered, {counts[False]} not\n")
    return server.returncode


if __name__ == "__main__":
    sys.exit(main())
