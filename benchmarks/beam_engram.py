"""Does a memory find the turns of BEAM that answer its questions? Over HTTP, against any engram.

    python benchmarks/beam_engram.py --dataset BEAM/chats/100K --output-dir out --start-engram --top-k 100
    python benchmarks/beam_engram.py --dataset BEAM/chats --tier 500K --output-dir out --mode qa --llm-model gpt-4o

The data is BEAM's folder of chats, a JSON file of chats, or a list of entries. Retrieval writes
beam_retrieval_results.json, beam_retrieval_metrics.json and beam_retrieval_summary.md; QA writes beam_hypothesis.jsonl
and, for each chat, the file of answers that BEAM's own evaluator reads. docs/QUALITY_BENCHMARKS.md says more.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import quality_main
from benchmarks.quality_beam import PROBING, USUAL_KEYS, Probed, Wanted, load_beam
from benchmarks.quality_data import Asked
from benchmarks.quality_options import build_parser
from benchmarks.quality_results import pretty, replace
from benchmarks.quality_run import Ids

PROG = "beam_engram"


class AnswerFiles:
    """BEAM's questions with the answers beside them: OUT/CHAT/engram_answers.json, as its evaluator reads them."""

    def __init__(self, folder: Path, name: str, probed: dict[str, Probed], *, copies: bool, resume: bool) -> None:
        self._folder = folder
        self._name = name
        self._probed = probed
        self._copies = copies
        self._resume = resume
        self._answered: dict[str, Any] = {}

    def write(self, asked: Asked, hypothesis: str) -> None:
        """Put an answer into the file of its chat, if it belongs to one."""
        if asked.place is None:
            return
        chat, group, place = asked.place
        if chat not in self._answered:
            self._answered[chat] = self._begin(chat)
        self._answered[chat][group][place]["llm_response"] = hypothesis
        replace(self._folder / chat / self._name, pretty(self._answered[chat]))

    def _begin(self, chat: str) -> Any:
        path = self._folder / chat / self._name
        path.parent.mkdir(parents=True, exist_ok=True)
        probed = self._probed[chat]
        if self._copies:
            copy = self._folder / chat / PROBING
            copy.parent.mkdir(exist_ok=True)
            if probed.path is None:
                replace(copy, pretty(probed.questions))
            else:
                shutil.copyfile(probed.path, copy)
        earlier = path.read_bytes() if self._resume and path.exists() else msgspec.json.encode(probed.questions)
        return msgspec.json.decode(earlier)


def main(arguments: Sequence[str]) -> int:
    """Run and return the exit code."""
    parser = build_parser(PROG, (__doc__ or "").splitlines()[0])
    group = parser.add_argument_group("BEAM")
    group.add_argument("--dataset-format", choices=("auto", "json", "beam-chats"), default="auto")
    group.add_argument("--tier", default="", help="100K (or 128K), 500K, 1M")
    for what in USUAL_KEYS:
        group.add_argument(f"--{what.replace('_', '-')}-key", default="", help=f"field of an entry's {what}")
    group.add_argument("--max-message-chars", type=_characters, default=4000, help="longer messages are split (4000)")
    group.add_argument("--result-file-name", default="engram_answers.json", help="of each chat's answers, in QA")
    group.add_argument("--copy-probing-questions", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args(arguments)
    return quality_main.run(options, PROG, lambda: _load(options))


def _load(options: argparse.Namespace) -> quality_main.Benchmark:
    keys = {what: getattr(options, f"{what}_key") for what in USUAL_KEYS}
    wanted = Wanted(options.dataset, options.dataset_format, options.tier, keys, options.limit)
    haystacks, probed = load_beam(wanted)
    files = AnswerFiles(
        options.output_dir,
        options.result_file_name,
        probed,
        copies=options.copy_probing_questions,
        resume=options.resume,
    )
    settings = {"max_message_chars": options.max_message_chars, "tier": options.tier}
    ids = Ids("beam-", options.max_message_chars)
    return quality_main.Benchmark("BEAM", "beam_", ids, haystacks, settings, files.write)


def _characters(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of characters, 1 or more")
    return int(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
