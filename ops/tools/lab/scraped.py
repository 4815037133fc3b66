"""The service while its metrics are scraped ten times a second: `python -m ops.tools.lab.scraped ARGUMENT...`.

The arguments are gunicorn's. Prometheus asks every 5 seconds (ops/monitoring/prometheus/prometheus.yml); with fifty
times as many scrapes, their cost shows in the figures.
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
PATIENCE = 5.0  # seconds for one scrape, the same as the exporter's own deadline


def main() -> int:
    """Run gunicorn and scrape it until it ends, print the number of scrapes, and return gunicorn's exit status."""
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
        # Scrapes fail before the exporter listens, which is two seconds after the service, and after its end.
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
