# The image of a node. Builds with the classic builder and with BuildKit.
#
#   docker build -t engram .
#   docker run -p 127.0.0.1:3000:3000 -v engram:/data engram
ARG PYTHON_IMAGE=python:3.12-slim-bookworm

FROM ${PYTHON_IMAGE} AS wheel
COPY requirements/build.txt /src/requirements/
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore -r /src/requirements/build.txt
COPY pyproject.toml README.md LICENSE /src/
COPY engram /src/engram
RUN pip wheel --no-deps --no-build-isolation --disable-pip-version-check --wheel-dir /wheels /src

FROM ${PYTHON_IMAGE}
# One thread for the matrices: they are small, and a second one only takes the core from the event loop.
ENV PYTHONUNBUFFERED=1 OPENBLAS_NUM_THREADS=1 ENGRAM_BIND_ADDR=0.0.0.0:3000 ENGRAM_DATA_DIR=/data
EXPOSE 3000
# bash alone: a probe in Python costs thirty times the CPU.
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=5 CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/3000; printf 'GET /health HTTP/1.0\\r\\n\\r\\n' >&3; read -r -t 2 line <&3; [[ $line == *' 200 '* ]]"]
CMD ["engram", "serve"]
RUN groupadd --system --gid 10001 engram && useradd --system --uid 10001 --gid engram --home-dir /data engram \
 && mkdir /data && chown engram:engram /data && chmod 700 /data
COPY requirements/runtime.txt /tmp/
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore -r /tmp/runtime.txt
VOLUME /data
COPY --from=wheel /wheels /tmp/wheels
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore --no-deps /tmp/wheels/*.whl \
 && rm -r /tmp/wheels
USER engram
