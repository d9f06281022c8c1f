"""What is each step of the recipe worth? The recipe with one thing changed, on the public questions.

    python -m benchmarks.recall_ablation     about half a minute; prints the table of recall.md

Cells: any@5, all@10, NDCG@10. Without --data the conversations lie in ../shared/data.
"""

import argparse
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.recall_data import FILES, Conversation, load
from benchmarks.recall_quality import DATA, MEASURES, Recipe, score
from engram.inference.builtin import BuiltinEmbedder
from engram.recall import evidence, rank, talk

CHANGES: Mapping[str, Mapping[str, float]] = {
    "the recipe": {},
    "lexical alone": {"DENSE_WEIGHT": 0.0},
    "dense alone": {"LEXICAL_WEIGHT": 0.0},
    "an assistant's row weighs 1 and costs nothing": {"ASSISTANT_WEIGHT": 1.0, "ASSISTANT_COSTS": 0.0},
    "an assistant's row costs nothing": {"ASSISTANT_COSTS": 0.0},
    "no reply lends": {"REPLY_LENDS": 0.0},
    "no episodes": {"EPISODE_WEIGHT": 0.0},
    "a turn of talk stands alone": {"TURNS_SHARE": 0.0},
    "a quarter of a turn is that of those around it": {"TURNS_SHARE": 0.25},
    "three quarters are": {"TURNS_SHARE": 0.75},
    "no question lends": {"QUESTION_LENDS": 0.0},
    "a question lends .5": {"QUESTION_LENDS": 0.5},
    "no speaker": {"SPEAKER_LIFT": 0.0},
    "a speaker lifts 1": {"SPEAKER_LIFT": 1.0},
    "no when": {"WHEN_LIFT": 0.0},
    "no near": {"NEAR_LIFT": 0.0},
}
STEPS = (evidence, talk, rank)
"""Where the constants are."""

SHOWN = ("any@5", "all@10", "NDCG@10")


@contextmanager
def changed(constants: Mapping[str, float]) -> Iterator[None]:
    """Give constants of the recipe other values for a while."""
    owners = {name: next(step for step in STEPS if hasattr(step, name)) for name in constants}
    before = {name: getattr(owners[name], name) for name in constants}
    for name, value in constants.items():
        setattr(owners[name], name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(owners[name], name, value)


def marks(conversations: Sequence[Conversation], recipes: Sequence[Recipe]) -> dict[str, float]:
    """Return the mean measures: of messages where the data names them, else of sessions."""
    rows = []
    for conversation, recipe in zip(conversations, recipes, strict=True):
        for question in conversation.questions:
            found = [conversation.messages[place] for place in recipe.find(question)]
            if question.messages:
                rows.append(score([message.message_id for message in found], question.messages))
            else:
                rows.append(score(list(dict.fromkeys(message.session for message in found)), question.sessions))
    return {name: statistics.fmean(column) for name, column in zip(MEASURES, zip(*rows, strict=True), strict=True)}


def main(arguments: Sequence[str]) -> int:
    """Print the table; fail when there is no data."""
    parser = argparse.ArgumentParser(prog="recall_ablation", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data; default: ../shared/data")
    options = parser.parse_args(arguments)
    embedder = BuiltinEmbedder()
    try:
        sets = {name: load(name, options.data) for name in FILES}
    except FileNotFoundError as error:
        sys.stderr.write(f"no data: {error}\n")
        return 1
    recipes = {name: [Recipe(talk.messages, embedder) for talk in talks] for name, talks in sets.items()}
    sys.stdout.write(f"| any@5, all@10, NDCG@10 | {' | '.join(sets)} |\n|---|{'---|' * len(sets)}\n")
    for label, constants in CHANGES.items():
        with changed(constants):
            means = [marks(sets[name], recipes[name]) for name in sets]
        cells = [" ".join(f"{mean[name]:.3f}" for name in SHOWN) for mean in means]
        sys.stdout.write(f"| {label} | {' | '.join(cells)} |\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
