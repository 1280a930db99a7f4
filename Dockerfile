# Calotype as an image: no root, nothing to write but /data and /tmp, every dependency by its hash.
# docs/guides/containers.md tells how to build and run it.

FROM python:3.11-slim-bookworm AS build
WORKDIR /build
RUN python3 -m venv --without-pip /opt/calotype
COPY requirements/runtime.lock ./
RUN python3 -m pip --python /opt/calotype/bin/python install --no-cache-dir \
    --only-binary :all: --require-hashes --requirement runtime.lock
COPY pyproject.toml README.md LICENSE ./
COPY src src
# The build backend came with the lock.
RUN python3 -m pip --python /opt/calotype/bin/python install --no-cache-dir \
    --no-deps --no-build-isolation .

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin \
    calotype && install --directory --owner calotype --group calotype --mode 700 /data
COPY --from=build /opt/calotype /opt/calotype
ENV PATH=/opt/calotype/bin:$PATH \
    CALOTYPE_DATA_DIR=/data \
    CALOTYPE_HOST=0.0.0.0
# A calotype.toml that is mounted here is read.
WORKDIR /etc/calotype
USER 10001:10001
VOLUME /data
EXPOSE 8080
# SIGTERM drains; give it a minute: docker stop --time 60.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s CMD ["python", "-c", \
    "import os, urllib.request as r; p = os.environ.get('CALOTYPE_PORT', '8080'); r.urlopen(f'http://127.0.0.1:{p}/healthz', timeout=5)"]
ENTRYPOINT ["calotype"]
CMD ["serve"]
