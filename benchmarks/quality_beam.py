"""BEAM in each form that it comes in: its folders of chats, one JSON file of those, or a list of entries.

A list of entries (of one's own, or of LongMemEval's form) may call its fields as it likes: the usual names are looked
for, and options name others. Chats have gold turns for the questions of the five abilities that retrieval answers.
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from benchmarks.quality_data import Asked, Haystack, Json, Turn, WrongDataError, field, read_json
from benchmarks.recall_data import BEAM_ABILITIES, STEP, beam_day, longmemeval_time, numbers

TIERS = {"100K": "100K", "128K": "100K", "500K": "500K", "1M": "1M", "10M": "10M"}
"""What a tier may be called, and the name of its folder."""

CHAT = Path("chat.json")
PROBING = Path("probing_questions") / "probing_questions.json"

USUAL_KEYS: Mapping[str, Sequence[str]] = {
    "question_id": ("question_id", "id", "qid"),
    "question": ("question", "query", "prompt"),
    "answer": ("answer", "reference", "ideal_answer", "ideal_response", "expected_answer", "gold_answer"),
    "conversation": ("conversation", "haystack_sessions", "sessions", "chat", "history", "messages"),
    "session_ids": ("session_ids", "haystack_session_ids"),
    "date": ("dates", "session_dates", "haystack_dates"),
    "answer_session_ids": ("answer_session_ids", "gold_session_ids", "evidence_session_ids", "target_session_ids"),
    "tier": ("tier", "chat_size", "size", "context_length"),
    "question_type": ("question_type", "type", "ability", "category"),
}
ANSWERS = ("answer", "ideal_answer", "ideal_response", "ideal_summary")
"""BEAM calls the right answer differently in its groups of questions."""

FIRST_DAY = datetime(2024, 1, 1, tzinfo=UTC)
"""For a chat that never says what day it is."""


class Wanted(NamedTuple):
    """What of a data set is wanted, and how it is written."""

    path: Path
    form: str
    """auto, json, or beam-chats."""
    tier: str
    keys: Mapping[str, str]
    """Names that replace the usual ones."""
    limit: int
    """Entries of a list, or conversations of a folder; 0: all."""


class Probed(NamedTuple):
    """The questions of one chat as its file has them, and where that is, for BEAM's own evaluator."""

    questions: Json
    path: Path | None


def load_beam(wanted: Wanted) -> tuple[list[Haystack], dict[str, Probed]]:
    """Return the conversations, and by their names the files of questions, where there are any.

    Raises:
        WrongDataError: The data is not in a form that is known.
    """
    path = wanted.path
    if wanted.form == "beam-chats" or (wanted.form == "auto" and not path.is_file()):
        return _folders(wanted)
    data = read_json(path)
    if isinstance(data, dict) and data and all(_is_chat(value) for value in data.values()):
        if wanted.tier:
            _tier(wanted.tier)
        names = list(data)[: wanted.limit or None]
        chats = [_chat(name, data[name]["chat"], data[name]["probing_questions"], "100K") for name in names]
        return chats, {name: Probed(data[name]["probing_questions"], None) for name in names}
    entries = _listed(data, path)
    chosen = [entry for entry in entries if not wanted.tier or _has_tier(entry, wanted)]
    return [_entry(entry, wanted, place) for place, entry in enumerate(chosen[: wanted.limit or None], 1)], {}


def _folders(wanted: Wanted) -> tuple[list[Haystack], dict[str, Probed]]:
    root, tier = _chats_root(wanted.path, wanted.tier)
    folders = [root] if (root / CHAT).exists() else [one for one in root.iterdir() if (one / CHAT).exists()]
    folders = sorted((one for one in folders if (one / PROBING).exists()), key=_by_number)[: wanted.limit or None]
    if not folders:
        raise WrongDataError(f"no folder in {root} has both {CHAT} and {PROBING}")
    probed = {one.name: Probed(read_json(one / PROBING), one / PROBING) for one in folders}
    return [_chat(one.name, read_json(one / CHAT), probed[one.name].questions, tier) for one in folders], probed


def _chats_root(path: Path, tier: str) -> tuple[Path, str]:
    """Return the folder of the conversations of a tier, from any folder above it, or one conversation's own."""
    if not path.is_dir():
        raise WrongDataError(f"{path} is no folder of BEAM chats")
    root = path / "chats" if (path / "chats").is_dir() else path
    tiers = sorted(one.name for one in root.iterdir() if one.is_dir() and one.name in TIERS)
    if not tiers:
        found = next((one for one in (root.name, root.parent.name) if one in TIERS), "")
        return root, _tier(tier or found or "100K")
    if not tier and len(tiers) > 1:
        raise WrongDataError(f"{root} has the tiers {', '.join(tiers)}: choose one with --tier")
    chosen = _tier(tier or tiers[0])
    if chosen not in tiers:
        raise WrongDataError(f"{root} has no tier {chosen}; it has {', '.join(tiers)}")
    return root / chosen, chosen


def _tier(name: str) -> str:
    tier = TIERS.get(name.upper())
    if tier is None:
        raise WrongDataError(f"{name} is no tier of BEAM: it has 100K (also called 128K), 500K and 1M")
    if tier == "10M":
        raise WrongDataError("tier 10M is not supported: its chats have another form")
    return tier


def _is_chat(value: Json) -> bool:
    return isinstance(value, dict) and {"chat", "probing_questions"} <= value.keys()


def _chat(name: str, batches: Json, probing: Json, tier: str) -> Haystack:
    """Return one conversation over weeks: batches are its sessions."""
    where = f"chat {name}"
    if not isinstance(batches, list) or not isinstance(probing, dict):
        raise WrongDataError(f"{where}: a list of batches and an object of probing questions were expected")
    turns: list[Turn] = []
    day = FIRST_DAY
    for number, batch in enumerate(batches, 1):
        session = f"{name}:batch-{batch.get('batch_number', number)}"
        for said in (said for part in field(batch, "turns", list, f"{where}, batch {number}") for said in part):
            anchor = said.get("time_anchor") or (None if turns else batch.get("time_anchor"))
            day = beam_day(anchor) or day
            text = field(said, "content", str, f"{where}, batch {number}")
            role = field(said, "role", str, f"{where}, batch {number}")
            # What follows the arrow is the generator's own note of where it is in its plan.
            text = re.sub(r"\s*->->.*$", "", text, flags=re.DOTALL) if role == "user" else text
            turns.append(Turn(str(said.get("id", len(turns))), role, text, day + len(turns) * STEP, session))
    known = {turn.turn_id for turn in turns}
    questions = [
        _probing(name, group, place, asked, known, day, tier)
        for group, listed in probing.items()
        for place, asked in enumerate(listed if isinstance(listed, list) else ())
        if isinstance(asked, dict) and str(asked.get("question", "")).strip()
    ]
    return Haystack(name, turns, questions)


def _probing(name: str, group: str, place: int, asked: Json, known: set[str], day: datetime, tier: str) -> Asked:
    is_retrieval = group in BEAM_ABILITIES
    answer = next((asked[key] for key in ANSWERS if asked.get(key)), None)
    return Asked(
        question_id=f"{name}:{group}:{place}",
        kind=group,
        text=str(asked["question"]).strip(),
        answer=str(answer) if answer is not None else json.dumps(asked.get("rubric", [])),
        now=day,
        turns=frozenset(numbers(asked.get("source_chat_ids") or [])) & known if is_retrieval else frozenset(),
        sessions=frozenset(),
        is_abstention=group == "abstention",
        tier=tier,
        place=(name, group, place),
    )


def _listed(data: Json, path: Path) -> Sequence[Json]:
    if isinstance(data, dict):
        data = next((data[key] for key in ("data", "examples", "items", "questions") if key in data), None)
    if not isinstance(data, list):
        raise WrongDataError(
            f"{path} is no BEAM data: a list of entries, an object with one as data, examples or items, or an object "
            "of chats with their probing_questions was expected"
        )
    return data


def _key(entry: Json, what: str, wanted: Wanted) -> str | None:
    """Return the name that `entry` has for a field; the option's, if one is given, must be there."""
    given = wanted.keys.get(what, "")
    if given:
        field(entry, given, object, f"an entry of {wanted.path.name}")
        return given
    return next((name for name in USUAL_KEYS[what] if name in entry), None)


def _has_tier(entry: Json, wanted: Wanted) -> bool:
    key = _key(entry, "tier", wanted)
    if key is None:
        raise WrongDataError(f"--tier {wanted.tier}: an entry of {wanted.path.name} does not say its own; --tier-key?")
    return TIERS.get(str(entry[key]).upper(), str(entry[key])) == _tier(wanted.tier)


def _entry(entry: Json, wanted: Wanted, number: int) -> Haystack:
    """Return an entry of a list: a conversation and one question about it."""
    where = f"entry {number} of {wanted.path.name}"
    if not isinstance(entry, dict):
        raise WrongDataError(f"{where} is no object")
    keys = {what: _key(entry, what, wanted) for what in USUAL_KEYS}
    if keys["conversation"] is None or keys["question"] is None:
        lacking = "conversation" if keys["conversation"] is None else "question"
        raise WrongDataError(f"{where} has no {lacking}: name its field with --{lacking}-key")
    values = {what: entry[key] for what, key in keys.items() if key is not None and entry[key] is not None}
    question_id = str(values.get("question_id", f"beam-q-{number}"))
    asked = Asked(
        question_id=question_id,
        kind=str(values.get("question_type", "unknown")),
        text=str(values["question"]),
        answer=str(values.get("answer", "")),
        now=None,
        turns=frozenset(),
        sessions=frozenset(map(str, values.get("answer_session_ids", ()))),
        is_abstention=bool(entry.get("is_abstention")) or question_id.endswith("_abs"),
        tier=str(values.get("tier", "")),
    )
    return Haystack(question_id, _turns(values, where), [asked])


def _turns(values: Mapping[str, Json], where: str) -> list[Turn]:
    sessions = _sessions(values["conversation"], where)
    names = values.get("session_ids", [f"beam-session-{number}" for number in range(1, len(sessions) + 1)])
    dates = values.get("date", [None] * len(sessions))
    if not len(sessions) == len(names) == len(dates):
        raise WrongDataError(f"{where} has {len(sessions)} sessions, {len(names)} ids and {len(dates)} dates")
    turns = []
    for number, (said, name, date) in enumerate(zip(sessions, names, dates, strict=True), 1):
        begin = _begin(date)
        for place, one in enumerate(said, 1):
            text = field(one, "content", str, f"{where}, session {number}")
            role = field(one, "role", str, f"{where}, session {number}")
            when = None if begin is None else begin + place * STEP
            turns.append(Turn(f"{number}-{place}", role, text, when, str(name)))
    return turns


def _sessions(conversation: Json, where: str) -> list[Json]:
    """Return the sessions in a list of turns, a list of lists of turns, or a list of objects with turns."""
    if not isinstance(conversation, list):
        raise WrongDataError(f"{where}: its conversation is no list")
    if all(isinstance(one, dict) and "content" in one for one in conversation):
        return [conversation]
    found: list[Json] = []
    for one in conversation:
        turns = next((one[key] for key in ("turns", "messages") if key in one), None) if isinstance(one, dict) else one
        if not isinstance(turns, list):
            raise WrongDataError(f"{where}: a session of its conversation has no turns")
        found.append([said for turn in turns for said in (turn if isinstance(turn, list) else [turn])])
    return found


def _begin(date: Json) -> datetime | None:
    """Return when a session began, if its date can be read."""
    try:
        return beam_day(date) or longmemeval_time(date)
    except (TypeError, ValueError):
        return None


def _by_number(folder: Path) -> tuple[int, str]:
    return (int(folder.name) if folder.name.isdigit() else 0, folder.name)
