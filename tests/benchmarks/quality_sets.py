"""Small data sets in the forms in which LongMemEval, LoCoMo and BEAM are published."""

import json
from pathlib import Path
from typing import Any

Json = Any

FILLER = (
    "The weather was mild and the market was crowded.",
    "I read a long novel about a lighthouse keeper.",
    "We repainted the kitchen in a pale green.",
    "My cousin runs a small bakery near the station.",
)


def write(path: Path, data: Json) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))
    return path


def longmemeval(questions: int = 2) -> list[Json]:
    """Return questions with four sessions each, the answer in the third; the last question has no answer."""
    return [_longmemeval(number, is_abstention=number == questions) for number in range(1, questions + 1)]


def _longmemeval(number: int, *, is_abstention: bool) -> Json:
    said = [[_user(text), _assistant("I see.")] for text in FILLER]
    said[2] = [{**_user(f"My violin teacher number {number} is called Ottoline."), "has_answer": True}, _user(" ")]
    return {
        "question_id": f"q{number}{'_abs' * is_abstention}",
        "question_type": "single-session-user" if number % 2 else "multi-session",
        "question": f"What is my violin teacher number {number} called?",
        "answer": "Ottoline",
        "question_date": "2023/06/06 (Tue) 08:19",
        "haystack_dates": [f"2023/05/0{day} (Mon) 10:00" for day in range(1, 5)],
        "haystack_session_ids": [f"s{number}-{place}" for place in range(1, 5)],
        "haystack_sessions": said,
        "answer_session_ids": [f"s{number}-3"],
    }


def locomo() -> list[Json]:
    """Return one conversation of two people in two sessions, with one question of each of three categories."""
    return [
        {
            "sample_id": "conv-1",
            "conversation": {
                "speaker_a": "Ada",
                "speaker_b": "Ben",
                "session_1_date_time": "1:56 pm on 8 May, 2023",
                "session_1": [
                    {"speaker": "Ada", "dia_id": "D1:1", "text": FILLER[0]},
                    {"speaker": "Ben", "dia_id": "D1:2", "text": "I adopted a greyhound.", "blip_caption": "a dog"},
                ],
                "session_2_date_time": "1:14 pm on 25 May, 2023",
                "session_2": [{"speaker": "Ada", "dia_id": "D2:1", "text": FILLER[3]}],
            },
            "qa": [
                {"question": "Which dog did Ben adopt?", "answer": "a greyhound", "evidence": ["D1:2"], "category": 4},
                {"question": "Who runs a bakery?", "answer": "a cousin", "evidence": ["D1:1"], "category": 1},
                {"question": "Which cat?", "adversarial_answer": "none", "evidence": ["D1:2"], "category": 5},
            ],
        }
    ]


def locomo_audit() -> list[Json]:
    """Return the list of errors in `locomo`: the second question's evidence."""
    return [{"question_id": "locomo_0_qa1", "question": "Who runs a bakery?", "correct_evidence": ["D2:1"]}]


def beam_chat() -> list[Json]:
    """Return a chat in two batches."""
    first = [{"id": 0, "time_anchor": "March-15-2024", **_user("My sprint ends on March 29. ->-> 1,1")}]
    second = [{"id": 2, **_user(FILLER[1])}, {"id": 3, **_assistant("A fine book.\n\n" + "x" * 40)}]
    return [
        {"batch_number": 1, "turns": [[*first, {"id": 1, **_assistant("Noted.")}]]},
        {"batch_number": 2, "turns": [second]},
    ]


def beam_probing() -> Json:
    """Return the questions about `beam_chat`, of three groups."""
    return {
        "information_extraction": [{"question": "When does my sprint end?", "answer": "29", "source_chat_ids": [0]}],
        "abstention": [{"question": "What did the users say?", "ideal_response": "Nothing.", "rubric": ["says so"]}],
        "summarization": [{"question": "Sum it up.", "rubric": ["the sprint"], "source_chat_ids": [0, 2]}],
    }


def beam_folder(folder: Path, tier: str = "100K", chats: tuple[str, ...] = ("1",)) -> Path:
    """Write chats as BEAM's repository has them, and return the folder above them."""
    for chat in chats:
        write(folder / "chats" / tier / chat / "chat.json", beam_chat())
        write(folder / "chats" / tier / chat / "probing_questions" / "probing_questions.json", beam_probing())
    return folder


def _user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def _assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}
