"""A conversation that is remembered: a small loop over engram's REST API, with the standard library only.

    make serve                                   in one terminal
    python3 examples/chat.py                     in another; lines from a pipe work too
    python3 examples/chat.py --session holiday   talk about something else

There is no model in it, so it needs no key: the "assistant" is a rule that repeats the memory which fits best. Put a
model's answer in the place of `reply`, with the text that `read_context` returns in its prompt, and it is an agent.

    /pin TEXT    a fact to show in every context    /context  what a model would be given
    /forget      delete the session for good        /quit     or end the input
"""

import argparse
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

TIMEOUT_S = 30.0
MAX_TOKENS = 2000


class Memory:
    """One session of an engram server."""

    def __init__(self, url: str, session_id: str) -> None:
        self._session = f"{url.rstrip('/')}/sessions/{quote(session_id, safe='')}"

    def add(self, *turns: tuple[str, str]) -> None:
        """Keep turns, (role, text) each, all of them or none; when it returns they are durable and can be found."""
        self._ask("POST", "/messages", {"messages": [{"role": role, "content": text} for role, text in turns]})

    def pin(self, fact: str) -> None:
        """Keep a fact that every context shows."""
        self._ask("PUT", "/core-memory", {"fact": fact})

    def search(self, query: str) -> list[dict[str, Any]]:
        """Return what was said that fits `query`, best first."""
        results: list[dict[str, Any]] = self._ask("POST", "/search", {"query": query, "top_k": 5})["results"]
        return results

    def read_context(self, query: str) -> str:
        """Return the memories that fit `query`, and the conversation so far, in at most 2000 tokens.

        Without a query, the memories fit what was said last.
        """
        wanted = {"max_tokens": str(MAX_TOKENS)} | ({"query": query} if query else {})
        try:
            answer = self._ask("GET", "/context?" + urlencode(wanted))
        except urllib.error.HTTPError as error:
            if error.code == 404:  # noqa: PLR2004 - nothing was said yet
                return ""
            raise
        return str(answer["context"])

    def forget(self) -> None:
        """Delete the session, its texts, and every trace of them on disk."""
        self._ask("DELETE", "")

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        request = urllib.request.Request(  # noqa: S310 - the address is the user's own
            self._session + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            return json.loads(answer.read() or b"null")


def reply(memory: Memory, line: str) -> str:
    """Answer by rule: what was said before that fits best. A model's answer belongs here."""
    said = [hit for hit in memory.search(line) if hit["role"] == "user" and hit["text"] != line]
    if not said:
        return "I will remember that."
    return f"I remember what you said on {said[0]['timestamp'][:10]}: {said[0]['text']}"


def answer(memory: Memory, line: str) -> str:
    """Obey a command, or answer a line and keep both."""
    command, _, rest = line.partition(" ")
    match command:
        case "/pin":
            if not rest.strip():
                return "Pin what? /pin TEXT"
            memory.pin(rest)
            return "Pinned."
        case "/context":
            return memory.read_context(rest.strip()) or "(nothing yet)"
        case "/forget":
            memory.forget()
            return "Forgotten."
        case _:
            text = reply(memory, line)
            memory.add(("user", line), ("assistant", text))
            return text


def read_lines() -> Iterator[str]:
    """Yield what the user says, with a prompt where a person types."""
    while True:
        if sys.stdin.isatty():
            print("you> ", end="", flush=True)
        line = sys.stdin.readline()
        if not line or line.strip() == "/quit":
            return
        if line.strip():
            yield line.strip()


def main() -> int:
    """Talk until the input ends."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:3000", help="where engram listens")
    parser.add_argument("--session", default="chat", help="which conversation to go on with")
    options = parser.parse_args()
    memory = Memory(options.url, options.session)
    try:
        for line in read_lines():
            print(f"bot> {answer(memory, line)}", flush=True)
    except urllib.error.HTTPError as error:
        print(f"engram refused that: {error.read().decode(errors='replace')}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"no engram at {options.url} ({error}); start one with: make serve", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
