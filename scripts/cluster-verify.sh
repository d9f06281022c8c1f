#!/usr/bin/env bash
# Check the running cluster of docker-compose.cluster.yml from outside, one line for each criterion; the exit code is 0
# only if all pass. It kills the leader's container and starts it again, and writes to sessions of its own, which it
# deletes. Needs bash, curl, and Docker with Compose.
#
#   scripts/cluster-verify.sh                all criteria
#   scripts/cluster-verify.sh digests        only this: are the read models of all nodes the same? It changes nothing
#
#   HTTP_PORT_1, HTTP_PORT_2, HTTP_PORT_3   ports of the nodes              (3000, 3001, 3002)
#   NODE_HOST                               where they are                  (127.0.0.1)
#   ADVERTISE_HOST                          what redirects must name        (127.0.0.1)
#   COMPOSE                                 what runs `kill` and `start` of a service
#                                           (docker compose or docker-compose, with the cluster's file)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

ports=("${HTTP_PORT_1:-3000}" "${HTTP_PORT_2:-3001}" "${HTTP_PORT_3:-3002}")
host=${NODE_HOST:-127.0.0.1}
advertised=${ADVERTISE_HOST:-127.0.0.1}
run=$$-$RANDOM
session=verify-$run
text="The ferry of $run leaves at noon."
failed=0
index=0  # of the last write that was acknowledged
leader=0 # its node id
killed=0 # the node that was

# --- asking ---------------------------------------------------------------------------------------------------------

url() { printf 'http://%s:%s' "$host" "${ports[$1 - 1]}"; } # NODE

ask() { curl --silent --noproxy '*' --max-time 10 "$@"; } # URL and options; prints the body

post() { # URL MESSAGE [CURL OPTION ...]; prints the headers of the answer
    ask --dump-header - --output /dev/null --header 'Content-Type: application/json' \
        --data "{\"id\":\"$2\",\"role\":\"user\",\"content\":\"$text\"}" "${@:3}" "$1"
}

# What stands in the answer that is piped in: a number of its JSON, a header of its headers, its status.
number() { grep -o "\"$1\":[0-9][0-9]*" | sed -n 1p | cut -d : -f 2; }
header() { tr -d '\r' | grep -i "^$1: " | tail -n 1 | cut -d ' ' -f 2-; }
status() { tr -d '\r' | sed -n 's/^HTTP[^ ]* \([0-9]*\).*/\1/p' | tail -n 1 | grep . || echo nothing; }

metric() { ask "$(url "$1")/metrics" | sed -n "s/^$2 \([0-9]*\).*/\1/p" | grep . || echo -1; } # NODE NAME

# Run a command until it succeeds, or fail after so many seconds.
within() { # SECONDS COMMAND ...
    local until_s=$((SECONDS + $1))
    shift
    until "$@"; do
        if ((SECONDS >= until_s)); then return 1; fi
        sleep 0.1
    done
}

# Lines of the digests that a node has taken of its read models: the log index that they are of, then "NAME":"SHA-256".
digests_of() { # NODE
    ask "$(url "$1")/cluster" | grep -o '"digests":{"index":[0-9]*,"models":{[^}]*}' |
        grep -o '"index":[0-9]*\|"[a-z_]*":"[0-9a-f]*"'
}

# --- what can be true of the cluster ----------------------------------------------------------------------------------

agree() { # NODE ...: all know the same leader and three members
    local node view named=0
    for node in "$@"; do
        view=$(ask "$(url "$node")/cluster") || return 1
        leader=$(number leader_id <<<"$view") || return 1
        ((leader > 0 && (named == 0 || named == leader))) || return 1
        (($(grep -o '"addr":' <<<"$view" | wc -l) == 3)) || return 1
        named=$leader
    done
}

has() { # NODE MESSAGE: the node has it, once it has applied what was acknowledged last
    ask --fail "$(url "$1")/sessions/$session/messages/$2?min_index=$index" | grep -F "$text" >/dev/null
}

replicated() { # every member's log is known to reach the last write
    local at
    for at in $(ask "$(url "$leader")/cluster" | grep -o '"last_log_index":[0-9]*' | cut -d : -f 2); do
        ((at >= index)) || return 1
    done
}

taken() { # INDEX: all nodes have taken digests at the same index, which is not before this one
    local node at first=0
    for node in 1 2 3; do
        at=$(digests_of "$node" | number index) || return 1
        ((at >= $1 && (first == 0 || at == first))) || return 1
        first=$at
    done
    index=$first
}

accepts() { # MESSAGE NODE ...: one of them acknowledges it
    local node answer
    for node in "${@:2}"; do
        answer=$(post "$(url "$node")/sessions/$session/messages" "$1" --max-time 2) || continue
        if [ "$(status <<<"$answer")" = 204 ]; then
            leader=$node index=$(header Engram-Index <<<"$answer")
            return 0
        fi
    done
    return 1
}

others() { # NODE: the other two
    local node
    for node in 1 2 3; do
        if ((node != $1)); then echo "$node"; fi
    done
}

# --- the criteria -----------------------------------------------------------------------------------------------------

election() {
    within 30 agree 1 2 3 || { why='the nodes do not agree on a leader and three members within 30 s'; return 1; }
    ask "$(url "$leader")/cluster" | grep '"role":"Leader"' >/dev/null || { why="node $leader does not say that it leads"; return 1; }
    why="node $leader leads 3 members"
}

replication() {
    local node
    accepts first "$leader" || { why="the leader, node $leader, did not acknowledge a write"; return 1; }
    for node in 1 2 3; do
        has "$node" first || { why="node $node does not show index $index"; return 1; }
    done
    within 15 replicated || { why="the leader does not know all logs to reach index $index within 15 s"; return 1; }
    why="index $index is on all three"
}

redirect() {
    local node answer path wanted
    path=/sessions/$session%2Fa%20b/messages
    wanted=http://$advertised:${ports[leader - 1]}
    for node in $(others "$leader"); do
        answer=$(post "$(url "$node")$path" m1)
        [ "$(status <<<"$answer")" = 307 ] || { why="node $node answered $(status <<<"$answer") to a write"; return 1; }
        [ "$(header Location <<<"$answer")" = "$wanted$path" ] ||
            { why="node $node redirects to $(header Location <<<"$answer"), not to $wanted$path"; return 1; }
        answer=$(post "$(url "$node")/sessions/$session/messages" "over-$node" --location)
        [ "$(status <<<"$answer")" = 204 ] || { why="the redirect was followed and gave $(status <<<"$answer")"; return 1; }
        index=$(header Engram-Index <<<"$answer")
        has "$node" "over-$node" || { why="node $node does not show what went through it"; return 1; }
    done
    why="followers send writes to $wanted"
}

linearizable() {
    local node
    for node in 1 2 3; do
        ask --fail "$(url "$node")/sessions/$session/messages/first?consistency=linearizable" | grep -F "$text" >/dev/null ||
            { why="node $node does not answer a linearizable read"; return 1; }
    done
    why='all three nodes answer'
}

metrics() {
    local node
    for node in 1 2 3; do
        (($(metric "$node" engram_raft_term) > 0)) || { why="no engram_raft_term on node $node"; return 1; }
        (($(metric "$node" engram_raft_commit_index) >= index)) ||
            { why="engram_raft_commit_index of node $node is below $index"; return 1; }
        (($(metric "$node" engram_raft_is_leader) == (node == leader))) ||
            { why="engram_raft_is_leader of node $node is wrong"; return 1; }
    done
    why='engram_raft_term, _commit_index, _is_leader'
}

failover() {
    local started_s node survivors
    read -r -a survivors <<<"$(others "$leader" | tr '\n' ' ')"
    $COMPOSE kill "node-$leader" >/dev/null 2>&1 || { why="cannot kill node-$leader: $COMPOSE kill"; return 1; }
    killed=$leader started_s=$SECONDS
    within 5 accepts after "${survivors[@]}" || { why="no write was accepted within 5 s of killing node $killed"; return 1; }
    why="node $leader took over from node $killed within $((SECONDS - started_s + 1)) s"
    for node in "${survivors[@]}"; do
        if ! has "$node" first || ! has "$node" after; then
            why="node $node lacks what was acknowledged"
            return 1
        fi
    done
}

rejoin() {
    ((killed > 0)) || { why='no node was killed'; return 1; }
    $COMPOSE start "node-$killed" >/dev/null 2>&1 || { why="cannot start node-$killed: $COMPOSE start"; return 1; }
    within 30 ask --fail --output /dev/null "$(url "$killed")/health" || { why="node $killed is not up after 30 s"; return 1; }
    within 30 has "$killed" after || { why="node $killed has not caught up with index $index after 30 s"; return 1; }
    within 15 agree 1 2 3 || { why='the nodes do not agree on a leader 15 s later'; return 1; }
    why="node $killed is back at index $index"
}

digests() {
    local node at models theirs other
    for node in 1 2 3; do
        at=$(ask "$(url "$node")/cluster" | number last_applied_index) || { why="node $node does not answer"; return 1; }
        if ((at > index)); then index=$at; fi
    done
    # A node takes them every 30 s at most, when something is new, and rests long after a pass over much.
    within "${DIGESTS_S:-120}" taken "$index" ||
        { why="no digests of all nodes at one index from $index on within ${DIGESTS_S:-120} s: does somebody write?"; return 1; }
    models=$(digests_of 1 | sed 1d)
    for node in 2 3; do
        theirs=$(digests_of "$node" | sed 1d)
        if [ "$theirs" != "$models" ]; then
            other=$(grep -vxF -e "$models" <<<"$theirs" | sed -n 1p | cut -d '"' -f 2)
            why="${other:-a read model} of node $node is not that of node 1 at index $index: engram verify --url says whose is wrong"
            return 1
        fi
    done
    why="$(grep -c . <<<"$models") read models are the same on all three at index $index"
}

forget() {
    local node answer
    answer=$(ask --dump-header - --output /dev/null --request DELETE --location "$(url 1)/sessions/$session")
    [ "$(status <<<"$answer")" = 204 ] || { why="deleting the session gave $(status <<<"$answer")"; return 1; }
    index=$(header Engram-Index <<<"$answer")
    for node in 1 2 3; do
        answer=$(ask --dump-header - --output /dev/null "$(url "$node")/sessions/$session?min_index=$index")
        [ "$(status <<<"$answer")" = 404 ] ||
            { why="node $node answers $(status <<<"$answer") for the deleted session"; return 1; }
    done
    why='the session is gone from all three nodes'
}

check() { # NAME
    why='it ended early'
    if "$1"; then
        printf 'PASS  %-14s %s\n' "$1" "$why"
    else
        printf 'FAIL  %-14s %s\n' "$1" "$why"
        failed=$((failed + 1))
    fi
}

if [ -z "${COMPOSE:-}" ]; then
    COMPOSE='docker compose'
    if ! docker compose version >/dev/null 2>&1; then COMPOSE=docker-compose; fi
    COMPOSE="$COMPOSE -f docker-compose.cluster.yml"
fi
command -v curl >/dev/null || { echo 'cluster-verify: curl is needed' >&2; exit 2; }

all=(election replication redirect linearizable metrics failover rejoin digests forget)
case "$*" in
'') criteria=("${all[@]}") ;;
digests) criteria=(digests) ;;
*) echo "cluster-verify: it takes 'digests', or nothing: not '$*'" >&2; exit 2 ;;
esac
for criterion in "${criteria[@]}"; do check "$criterion"; done
if ((failed > 0)); then
    echo "FAIL: $failed of ${#criteria[@]} criteria"
    exit 1
fi
echo "PASS: all ${#criteria[@]} criteria"
