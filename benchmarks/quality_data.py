"""LongMemEval and LoCoMo as they are published, made into conversations with questions (BEAM: `quality_beam`).

Nothing is guessed: what a file lacks is an error that says where.
"""

import gzip
import json
import lzma
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.recall_data import STEP, corrected_evidence, locomo_time, longmemeval_time

Json = Any

LOCOMO_KINDS = {1: "multi-hop", 2: "temporal", 3: "open-domain", 4: "single-hop", 5: "adversarial"}
"""LoCoMo numbers its categories; the last one asks for what was never said."""

OPENERS: Mapping[str, Callable[..., Any]] = {".xz": lzma.open, ".gz": gzip.open}


class WrongDataError(Exception):
    """A file of a data set is not what it should be; the message says which, where, and how."""


class Turn(NamedTuple):
    """Something that was said; `session` is the source's name for the part of the conversation it is in."""

    turn_id: str
    role: str
    text: str
    when: datetime | None
    session: str


class Asked(NamedTuple):
    """A question about a conversation, and what answers it: turns, sessions, or (in QA) a text."""

    question_id: str
    kind: str
    text: str
    answer: str
    now: datetime | None
    turns: frozenset[str]
    sessions: frozenset[str]
    is_abstention: bool = False
    """There is no answer in the conversation."""
    tier: str = ""
    place: tuple[str, str, int] | None = None
    """BEAM: conversation, group and place in the group of the file that its evaluator reads."""


class Haystack(NamedTuple):
    """All that was said before the questions are asked."""

    name: str
    turns: Sequence[Turn]
    questions: Sequence[Asked]


def read_json(path: Path) -> Json:
    """Return what a JSON file holds, packed with xz or gzip or not at all.

    Raises:
        WrongDataError: There is no such file, or it holds something else.
    """
    try:
        with OPENERS.get(path.suffix, open)(path, "rt", encoding="utf-8") as file:
            return json.load(file)
    except OSError as error:
        raise WrongDataError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, lzma.LZMAError, EOFError) as error:
        raise WrongDataError(f"{path} holds no JSON: {error}") from None


def field(entry: Json, name: str, kind: type, where: str) -> Json:
    """Return a field of an object.

    Raises:
        WrongDataError: It is not there, or not of that kind.
    """
    if not isinstance(entry, dict):
        raise WrongDataError(f"{where} is {_called(entry)}; an object was expected")
    if name not in entry:
        raise WrongDataError(f"{where} has no {name}; it has {', '.join(sorted(entry)) or 'nothing'}")
    if not isinstance(entry[name], kind):
        raise WrongDataError(f"{where}: {name} is {_called(entry[name])}; {_kind(kind)} was expected")
    return entry[name]


def load_longmemeval(path: Path) -> list[Haystack]:
    """Return a haystack of its own for each question of LongMemEval's file.

    Raises:
        WrongDataError: The file is something else.
    """
    data = read_json(path)
    if not isinstance(data, list):
        raise WrongDataError(f"{path} holds {_called(data)}; LongMemEval is a list of questions")
    return [_longmemeval(entry, f"question {place} of {path.name}") for place, entry in enumerate(data, 1)]


def load_locomo(path: Path, audit: Path | None, categories: frozenset[int]) -> list[Haystack]:
    """Return LoCoMo's conversations with the questions of some categories.

    `audit` is a list of errors in its evidence, which is then corrected.

    Raises:
        WrongDataError: A file is something else.
    """
    data = read_json(path)
    errors = [] if audit is None else read_json(audit)
    if not isinstance(data, list):
        raise WrongDataError(f"{path} holds {_called(data)}; LoCoMo is a list of conversations")
    return [_locomo(entry, errors, categories, place, path.name) for place, entry in enumerate(data, 1)]


def _longmemeval(entry: Json, where: str) -> Haystack:
    question_id = field(entry, "question_id", str, where)
    where = f"{where}, {question_id}"
    sessions = field(entry, "haystack_sessions", list, where)
    names = field(entry, "haystack_session_ids", list, where)
    dates = field(entry, "haystack_dates", list, where)
    if not len(sessions) == len(names) == len(dates):
        raise WrongDataError(f"{where} has {len(sessions)} sessions, {len(names)} ids and {len(dates)} dates")
    begins = [_time(longmemeval_time, date, where) for date in dates]
    turns: list[Turn] = []
    right: set[str] = set()
    for number in sorted(range(len(begins)), key=begins.__getitem__):
        for place, said in enumerate(sessions[number]):
            turn_id = f"{number + 1}-{place + 1}"
            text = field(said, "content", str, f"{where}, turn {turn_id}")
            role = field(said, "role", str, f"{where}, turn {turn_id}")
            if text.strip():
                turns.append(Turn(turn_id, role, text, begins[number] + place * STEP, str(names[number])))
                right.update([turn_id] if said.get("has_answer") else [])
    asked = Asked(
        question_id=question_id,
        kind=field(entry, "question_type", str, where),
        text=field(entry, "question", str, where),
        answer=str(entry.get("answer", "")),
        now=_time(longmemeval_time, entry["question_date"], where) if entry.get("question_date") else None,
        turns=frozenset(right),
        sessions=frozenset(map(str, field(entry, "answer_session_ids", list, where))),
        is_abstention=question_id.endswith("_abs"),
    )
    return Haystack(question_id, turns, [asked])


def _locomo(entry: Json, audit: Json, categories: frozenset[int], number: int, file: str) -> Haystack:
    where = f"conversation {number} of {file}"
    name = str(entry.get("sample_id", number)) if isinstance(entry, dict) else str(number)
    turns = list(_locomo_turns(field(entry, "conversation", dict, where), where))
    session_of = {turn.turn_id: turn.session for turn in turns}
    questions = []
    asked = field(entry, "qa", list, where)
    for place, one in enumerate(asked):
        field(one, "question", str, f"{where}, question {place}")
    corrected = corrected_evidence(asked, audit)
    for place, one in enumerate(asked):
        category = field(one, "category", int, f"{where}, question {place}")
        evidence = " ".join(map(str, corrected.get(place) or one.get("evidence") or []))
        right = frozenset(found for found in re.findall(r"D\d+:\d+", evidence) if found in session_of)
        if category in categories:
            questions.append(
                Asked(
                    question_id=f"{name}:{place}",
                    kind=LOCOMO_KINDS.get(category, str(category)),
                    text=one["question"],
                    answer=str(one.get("answer", one.get("adversarial_answer", ""))),
                    now=turns[-1].when if turns else None,
                    turns=right,
                    sessions=frozenset(session_of[turn] for turn in right),
                    is_abstention=LOCOMO_KINDS.get(category) == "adversarial",
                )
            )
    return Haystack(name, turns, questions)


def _locomo_turns(talk: Json, where: str) -> Iterator[Turn]:
    """Yield what two people say, their names before it: both are users to a memory."""
    for number in sorted(int(key[8:]) for key in talk if re.fullmatch(r"session_\d+", key)):
        session = f"session_{number}"
        begin = _time(locomo_time, field(talk, f"{session}_date_time", str, where), where)
        for place, said in enumerate(talk[session]):
            turn_id = field(said, "dia_id", str, f"{where}, {session}")
            speaker = field(said, "speaker", str, f"{where}, {turn_id}")
            shared = f" [shares {said['blip_caption']}]" if said.get("blip_caption") else ""
            text = f"{speaker}: {field(said, 'text', str, f'{where}, {turn_id}')}{shared}"
            yield Turn(turn_id, "user", text, begin + place * STEP, session)


def _time(parse: Callable[[str], datetime], text: Json, where: str) -> datetime:
    try:
        return parse(text)
    except (TypeError, ValueError):
        raise WrongDataError(f"{where}: {text!r} is no date of this data set") from None


def _called(value: Json) -> str:
    return _kind(type(value))


def _kind(kind: type) -> str:
    names = {dict: "an object", list: "a list", str: "a string", int: "a number", float: "a number"}
    return names.get(kind, "null" if kind is type(None) else kind.__name__)
