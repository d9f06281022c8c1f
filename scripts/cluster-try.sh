#!/usr/bin/env bash
# Build the image, start three nodes, form the cluster, verify it, and take everything down again. Without Docker it
# says SKIP and why, and exits 0. It works in a Compose project of its own, so that no data of yours is touched.
#
#   HTTP_PORT_1 .. 3, RAFT_PORT_1 .. 3   ports on 127.0.0.1                          (3000 .. 3002, 9001 .. 9003)
#   COMPOSE_PROJECT_NAME                 the project's name                          (engram-try)
#   BASE_IMAGES                          a command that makes missing base images where none can be pulled
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export COMPOSE_PROJECT_NAME=${COMPOSE_PROJECT_NAME:-engram-try}
python_image=${PYTHON_IMAGE:-python:3.12-slim-bookworm}
redis_image=${REDIS_IMAGE:-redis:7-alpine}
base_images=${BASE_IMAGES:-../shared/tools/containers/local-images.sh}

skip() {
    echo "SKIP the three-node cluster in containers: $*"
    exit 0
}

say() { printf '%4ds  %s\n' "$SECONDS" "$*"; }

compose() { $COMPOSE "$@"; }

# Run a command and show what it wrote only if it fails.
quietly() {
    if ! "$@" >"$log" 2>&1; then
        tail -n 60 "$log" >&2
        echo "failed: $*" >&2
        return 1
    fi
}

finish() {
    local code=$?
    if ((code != 0)); then compose logs --tail 60 node-1 node-2 node-3 >&2 || true; fi
    compose down --volumes --remove-orphans >/dev/null 2>&1 || true
    rm -f "$log"
    exit "$code"
}

command -v docker >/dev/null || skip 'docker is not installed'
docker info >/dev/null 2>&1 || skip 'the Docker daemon does not answer: docker info says why'
if docker compose version >/dev/null 2>&1; then
    COMPOSE='docker compose'
elif command -v docker-compose >/dev/null; then
    COMPOSE=docker-compose
else
    skip 'there is neither "docker compose" nor docker-compose'
fi
COMPOSE="$COMPOSE -f docker-compose.cluster.yml"
export COMPOSE

log=$(mktemp)
trap finish EXIT
trap 'exit 130' INT TERM

if ! docker image inspect "$python_image" "$redis_image" >/dev/null 2>&1 && [ -x "$base_images" ]; then
    say "making $python_image and $redis_image"
    PYTHON_IMAGE=$python_image REDIS_IMAGE=$redis_image quietly "$base_images"
fi
say 'building the image'
quietly compose build node-1
say 'starting three nodes'
quietly compose down --volumes --remove-orphans # what an interrupted run left
quietly compose up -d --no-build
WAIT_S=120 scripts/cluster-init.sh # the machine has just built an image and started six containers
say 'verifying'
scripts/cluster-verify.sh
say 'taking it down'
