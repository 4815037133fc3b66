# The image of the service: `make image` builds it, compose.yaml runs it. It installs only requirements/runtime.txt.
# It runs as any user, on a read-only root file system: all code is compiled to bytecode here, and the service writes
# only to /tmp, /dev/shm and PROMETHEUS_MULTIPROC_DIR.

FROM python:3.13.16-slim-trixie AS python
# The official image has no bytecode of the standard library: a health check took 55 ms of CPU without it, 17 with it.
# unchecked: files of an image do not change, so no import compares bytecode with its source.
ARG COMPILE="python -m compileall -qf --invalidation-mode unchecked-hash"
RUN $COMPILE -x 'site-packages|ensurepip|idlelib|tkinter|turtledemo' \
        "$(python -c 'import os; print(os.path.dirname(os.__file__))')"

FROM python AS packages
ENV PIP_REQUIRE_HASHES=1 PIP_NO_DEPS=1 PIP_ONLY_BINARY=:all: PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY requirements/runtime.txt requirements/
RUN python -m venv --without-pip /venv \
    && pip --python /venv/bin/python install -r requirements/runtime.txt \
    # No program reads the sources of translations and of minified scripts, which are 14 of 92 MB.
    && find /venv '(' -name '*.po' -o -name '*.js.map' ')' -delete \
    && $COMPILE /venv/lib

FROM packages AS profiling-packages
COPY requirements/profile.txt requirements/
RUN pip --python /venv/bin/python install -r requirements/profile.txt && $COMPILE /venv/lib

# The bill of materials of /venv (`make sbom`). The stage runtime copies /venv unchanged; the tool is in no image.
FROM packages AS sbom-tool
COPY requirements/sbom.txt requirements/
COPY pyproject.toml .
RUN python -m venv --without-pip /sbom \
    && pip --python /sbom/bin/python install -r requirements/sbom.txt \
    && /sbom/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
        --output-format JSON --output-file /image.cdx.json /venv/bin/python

FROM scratch AS sbom
COPY --from=sbom-tool /image.cdx.json /

FROM python AS source
COPY . /app
RUN rm -r /app/requirements && $COMPILE /app

FROM python AS service
RUN pip uninstall --yes --quiet --root-user-action ignore pip \
    && useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin service
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /app
# The user is a number, since Kubernetes's runAsNonRoot cannot look up a name.
USER 10001:10001
EXPOSE 8000 9100
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s CMD ["python", "-S", "-m", "ops.healthcheck"]
# In the exec form, gunicorn itself gets SIGTERM: it ends its requests first, then its workers.
CMD ["gunicorn", "config.asgi:application"]
ARG NAME=service
ARG VERSION=development
ARG REVISION=unknown
ARG CREATED=unknown
ENV REVISION=$REVISION
LABEL org.opencontainers.image.title=$NAME \
      org.opencontainers.image.description="A Django API service that answers in under 10 ms at p99" \
      org.opencontainers.image.licenses=MIT \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.revision=$REVISION \
      org.opencontainers.image.created=$CREATED

# The service with django-silk and the debug toolbar, for compose's profile `profiling`. It is not for production.
FROM service AS profiling
COPY --from=profiling-packages /venv /venv
COPY --from=source /app /app

FROM service AS runtime
COPY --from=packages /venv /venv
COPY --from=source /app /app
