"""How gunicorn and uvicorn run the service: worker, loop, HTTP protocol with its limits, wire cache, exporter."""
