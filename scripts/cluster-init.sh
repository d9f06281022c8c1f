#!/usr/bin/env bash
# Form the cluster of docker-compose.cluster.yml: wait for its nodes, initialise it, wait for a leader, show it.
# Needs bash and curl. Running it again changes nothing.
#
#   HTTP_PORT_1, HTTP_PORT_2, HTTP_PORT_3   ports of the nodes  (3000, 3001, 3002)
#   NODE_HOST                               where they are      (127.0.0.1)
#   WAIT_S                                  patience in seconds (30)
set -euo pipefail

ports=("${HTTP_PORT_1:-3000}" "${HTTP_PORT_2:-3001}" "${HTTP_PORT_3:-3002}")
host=${NODE_HOST:-127.0.0.1}
wait_s=${WAIT_S:-30}

fail() {
    printf 'cluster-init: %s\n' "$*" >&2
    exit 1
}

ask() { curl --silent --show-error --noproxy '*' --max-time 10 "$@"; }

await_health() { # PORT
    until ask --fail --output /dev/null "http://$host:$1/health" 2>/dev/null; do
        if ((SECONDS >= wait_s)); then fail "no answer from http://$host:$1/health within $wait_s s: is the node up?"; fi
        sleep 0.5
    done
}

# A node that answers HTTP may not answer its peers yet, which is a 503 that names the one that is missing.
initialise() {
    local answer status
    while true; do
        answer=$(ask --request POST --write-out '\n%{http_code}' "http://$host:${ports[0]}/cluster/init") ||
            fail "http://$host:${ports[0]}/cluster/init gave no answer"
        status=${answer##*$'\n'}
        case $status in
        200) return ;;
        503) if ((SECONDS >= wait_s)); then break; fi ;;
        *) break ;;
        esac
        sleep 0.5
    done
    fail "http://$host:${ports[0]}/cluster/init answered $status: ${answer%$'\n'*}"
}

has_leader() { # PORT
    ask "http://$host:$1/cluster" 2>/dev/null | grep '"leader_id":[1-9]' >/dev/null
}

await_leader() { # PORT
    until has_leader "$1"; do
        if ((SECONDS >= 2 * wait_s)); then fail "http://$host:$1/cluster names no leader after $((2 * wait_s)) s"; fi
        sleep 0.2
    done
}

command -v curl >/dev/null || fail 'curl is needed'
for port in "${ports[@]}"; do await_health "$port"; done
initialise
for port in "${ports[@]}"; do await_leader "$port"; done
ask --fail "http://$host:${ports[0]}/cluster"
echo
