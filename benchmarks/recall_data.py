"""Public conversations with questions, and which messages or sessions answer each: LongMemEval, LoCoMo, BEAM.

The files are not part of the project. LoCoMo's answers are corrected by an audit of them, where that lies beside it.
"""

import json
import lzma
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from engram.events import Role
from engram.projections.rows import MessageRow

FILES = {
    "LongMemEval": "longmemeval_s_dev.json.xz",
    "LoCoMo": "locomo_dev.json.xz",
    "BEAM": "beam_100k_dev.json.xz",
}
AUDIT_FILE = "locomo_audit_errors.json.xz"

STEP = timedelta(seconds=20)
"""Between two messages of a session: the data says only when a session began."""

LME_WITHOUT_ANSWER = frozenset({"0bb5a684", "2a1811e2", "8c18457d", "gpt4_0b2f1d21", "gpt4_2655b836"})
BEAM_ABILITIES = (
    "information_extraction",
    "knowledge_update",
    "temporal_reasoning",
    "contradiction_resolution",
    "multi_session_reasoning",
)
LOCOMO_UNANSWERABLE = 5

SESSION_KEY = 1

Json = Any
Evidence = Mapping[tuple[int, int], Sequence[str]]


class Said(NamedTuple):
    """A message; `session` is the part of the conversation it is in."""

    message_id: str
    role: Role
    text: str
    when: datetime
    session: str


class Question(NamedTuple):
    """A question, asked at a time, and what answers it: messages or whole sessions."""

    text: str
    now: datetime
    messages: frozenset[str]
    sessions: frozenset[str]

    @property
    def now_ms(self) -> int:
        """The time at which it is asked, in milliseconds since 1970."""
        return int(self.now.timestamp() * 1000)


class Conversation(NamedTuple):
    """All that was said before the questions are asked."""

    messages: Sequence[Said]
    questions: Sequence[Question]


def row_of(place: int, message: Said, tokens: int = 0) -> MessageRow:
    """Return a message as the read models would have it, the conversation being their only session."""
    return MessageRow(
        session_key=SESSION_KEY,
        ordinal=place,
        message_id=message.message_id,
        role=message.role,
        name=None,
        text=message.text,
        tokens=tokens,
        occurred_at_ms=int(message.when.timestamp() * 1000),
        at_ms=0,
        log_index=place + 1,
        metadata={},
        embedding="done",
    )


def load(name: str, folder: Path) -> list[Conversation]:
    """Return the conversations of one of `FILES`.

    Raises:
        FileNotFoundError: It is not in `folder`.
    """
    data = _read(folder / FILES[name])
    match name:
        case "LongMemEval":
            return [_longmemeval(entry) for entry in data if _is_answerable(entry)]
        case "LoCoMo":
            audit = folder / AUDIT_FILE
            return [_locomo(entry, _read(audit) if audit.exists() else []) for entry in data]
        case _:
            return [_beam(entry) for entry in data.values()]


def _read(path: Path) -> Json:
    with lzma.open(path, "rt", encoding="utf-8") as file:
        return json.load(file)


def _is_answerable(entry: Json) -> bool:
    unanswerable = "_abs" in entry["question_id"] or entry["question_id"] in LME_WITHOUT_ANSWER
    return bool(entry["answer_session_ids"]) and not unanswerable


def _longmemeval(entry: Json) -> Conversation:
    """Sessions of a person with an assistant, many of them beside the point; sessions are the answer."""
    begins = [longmemeval_time(text) for text in entry["haystack_dates"]]
    messages = [
        Said(f"{number}-{place}", turn["role"], turn["content"], begins[number] + place * STEP, str(number))
        for number in sorted(range(len(begins)), key=begins.__getitem__)
        for place, turn in enumerate(entry["haystack_sessions"][number])
        if turn["content"].strip()
    ]
    answers = set(entry["answer_session_ids"])
    sessions = frozenset(str(n) for n, session in enumerate(entry["haystack_session_ids"]) if session in answers)
    now = longmemeval_time(entry["question_date"])
    return Conversation(messages, [Question(entry["question"], now, frozenset(), sessions)])


def longmemeval_time(text: str) -> datetime:
    """Return the time that LongMemEval writes like `2023/04/25 (Tue) 04:07`."""
    return datetime.strptime(re.sub(r"\s*\(\w+\)", "", text), "%Y/%m/%d %H:%M").replace(tzinfo=UTC)


def _locomo(entry: Json, audit: Json) -> Conversation:
    """Two people, their names before what they say; messages are the answer."""
    talk = entry["conversation"]
    messages: list[Said] = []
    for number in sorted(int(key[8:]) for key in talk if re.fullmatch(r"session_\d+", key)):
        begin = locomo_time(talk[f"session_{number}_date_time"])
        for place, turn in enumerate(talk[f"session_{number}"]):
            shared = f" [shares {turn['blip_caption']}]" if turn.get("blip_caption") else ""
            text = f"{turn['speaker']}: {turn['text']}{shared}"
            messages.append(Said(turn["dia_id"], "user", text, begin + place * STEP, str(number)))
    session_of = {message.message_id: message.session for message in messages}
    corrected = corrected_evidence(entry["qa"], audit)
    questions = []
    for place, asked in enumerate(entry["qa"]):
        evidence = " ".join(corrected.get(place) or asked.get("evidence") or [])
        answers = frozenset(found for found in re.findall(r"D\d+:\d+", evidence) if found in session_of)
        if answers and asked["category"] != LOCOMO_UNANSWERABLE:
            sessions = frozenset(session_of[answer] for answer in answers)
            questions.append(Question(asked["question"], messages[-1].when, answers, sessions))
    return Conversation(messages, questions)


def locomo_time(text: str) -> datetime:
    """Return the time that LoCoMo writes like `1:56 pm on 8 May, 2023`."""
    return datetime.strptime(text.upper(), "%I:%M %p ON %d %B, %Y").replace(tzinfo=UTC)


def corrected_evidence(questions: Json, audit: Json) -> dict[int, Sequence[str]]:
    """Return the audit's evidence by question; it numbers conversations by a file that this one is a part of."""
    numbered = [(*map(int, re.findall(r"\d+", error["question_id"])), error) for error in audit]
    texts = [question["question"] for question in questions]
    votes = Counter(
        conversation for conversation, place, error in numbered if texts[place : place + 1] == [error["question"]]
    )
    if not votes:
        return {}
    mine = votes.most_common(1)[0][0]
    return {place: error.get("correct_evidence") or [] for number, place, error in numbered if number == mine}


def _beam(entry: Json) -> Conversation:
    """A person with an assistant over weeks; messages are the answer."""
    messages: list[Said] = []
    day = datetime(2024, 1, 1, tzinfo=UTC)
    for batch in entry["chat"]:
        for turn in (turn for turns in batch["turns"] for turn in turns):
            anchor = turn.get("time_anchor") or (None if messages else batch.get("time_anchor"))
            day = beam_day(anchor) or day
            text = re.sub(r"\s*->->.*$", "", turn["content"], flags=re.DOTALL)
            text = text if turn["role"] == "user" else turn["content"]
            when = day + len(messages) * STEP
            messages.append(Said(str(turn["id"]), turn["role"], text, when, str(batch["batch_number"])))
    known = {message.message_id for message in messages}
    questions = []
    for ability in BEAM_ABILITIES:
        for asked in entry["probing_questions"].get(ability, ()):
            answers = frozenset(numbers(asked.get("source_chat_ids") or [])) & known
            if answers:
                questions.append(Question(asked["question"], day, answers, frozenset()))
    return Conversation(messages, questions)


def beam_day(anchor: str | None) -> datetime | None:
    """Return the day that BEAM writes like `March-15-2024`; None for anything else."""
    try:
        return datetime.strptime(anchor or "", "%B-%d-%Y").replace(tzinfo=UTC)
    except ValueError:
        return None


def numbers(nested: Json) -> Iterator[str]:
    """Yield the numbers in lists of lists, of mappings, of strings like "12, 14"."""
    if isinstance(nested, dict):
        nested = list(nested.values())
    if isinstance(nested, list):
        for part in nested:
            yield from numbers(part)
    else:
        yield from re.findall(r"\d+", str(nested))
