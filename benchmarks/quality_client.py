"""A memory over HTTP as the quality benchmarks use it: one connection, one request at a time.

A server that is not ready (503) is asked again; every request can be repeated safely, since messages have ids.
"""

import http.client
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

Json = Any

TRIES_MAX = 10
WAIT_S = 0.25
"""Before the second try, doubled up to `WAIT_S_MAX` before each further one."""
WAIT_S_MAX = 2.0

BATCH_MESSAGES_MAX = 100
BATCH_CHARACTERS_MAX = 256 * 1024
"""Of one request: a body may have 2 MiB, and a character up to 6 bytes there."""

MESSAGE_SECTIONS = frozenset({"memories", "conversation"})
"""Of a context; the others hold facts and summaries."""

EMBEDDER_COUNT = re.compile(r'^engram_memory_embedding_duration_seconds_count\{model="([^"]+)"\}', re.MULTILINE)
RSS_GAUGE = "process_resident_memory_bytes"

OK, NO_CONTENT, REDIRECT, UNAVAILABLE = 200, 204, 307, 503


class RefusedError(Exception):
    """The server did not do what it was asked for; the message says what it answered."""


class Message(NamedTuple):
    """What is written; `timestamp` in RFC 3339."""

    message_id: str
    role: str
    content: str
    timestamp: str | None

    def body(self) -> dict[str, str]:
        """Return the message as JSON has it."""
        said = {"id": self.message_id, "role": self.role, "content": self.content}
        return said if self.timestamp is None else {**said, "timestamp": self.timestamp}


class Hit(NamedTuple):
    """A message that was found; the predecessor gave no id."""

    message_id: str | None
    text: str
    score: float


class Context(NamedTuple):
    """What a memory gives for a prompt. The predecessor gave its text alone: no ids, and 0 tokens."""

    text: str
    message_ids: frozenset[str] | None
    """Of the messages in it, which stand among the memories or in the conversation."""
    tokens: int


class Http:
    """Requests to one server, over one connection that is kept."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._connection: http.client.HTTPConnection | None = None

    def send(
        self, method: str, path: str, body: Json = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Return the status and the body of the answer, also of an error.

        Raises:
            RefusedError: There is none.
        """
        data = None if body is None else json.dumps(body).encode()
        sent = {**({} if data is None else {"Content-Type": "application/json"}), **(headers or {})}
        is_new = self._connection is None
        try:
            return self._send(method, path, data, sent)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if is_new:
                raise RefusedError(f"{self._url} cannot be reached: {_reason(error)}") from None
        try:
            return self._send(method, path, data, sent)  # what was kept was too old
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise RefusedError(f"{self._url} does not answer: {_reason(error)}") from None

    def move(self, url: str) -> None:
        """Send everything to another server from now on."""
        self.close()
        self._url = url

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _send(self, method: str, path: str, data: bytes | None, headers: Mapping[str, str]) -> tuple[int, bytes]:
        parts = urlsplit(self._url)
        if self._connection is None:
            kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
            self._connection = kind(parts.hostname or "", parts.port, timeout=self._timeout_s)
        self._connection.request(method, parts.path + path, data, dict(headers))
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status == REDIRECT:
            return answer.status, (answer.headers["Location"] or "").encode()
        return answer.status, body


class Memory:
    """A memory server."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self._http = Http(url, timeout_s)
        self.url = url

    def close(self) -> None:
        """Hang up."""
        self._http.close()

    def open_session(self, session_id: str, user_id: str | None = None) -> str:
        """Return an empty session's id: this one, or another if the server makes its own."""
        self.delete_session(session_id)  # of a run that was killed
        asked = {"session_id": session_id, **({} if user_id is None else {"user_id": user_id})}
        return str(json.loads(self._ask("POST", "/sessions", asked))["session_id"])

    def delete_session(self, session_id: str) -> None:
        """Forget a session, whether there is one or not."""
        self._ask("DELETE", _path(session_id))

    def write(self, session_id: str, messages: Sequence[Message]) -> None:
        """Write messages in batches; each is a request of its own."""
        for batch in _batches(messages):
            self._ask("POST", _path(session_id, "/messages"), {"messages": [message.body() for message in batch]})

    def write_one(self, session_id: str, message: Message) -> None:
        """Write one message in a request of its own."""
        self._ask("POST", _path(session_id, "/messages"), message.body())

    def search(self, session_id: str, query: str, top_k: int, now: str | None) -> list[Hit]:
        """Return what is found, best first."""
        asked = {"query": query, "top_k": top_k, **({} if now is None else {"now": now})}
        found = json.loads(self._ask("POST", _path(session_id, "/search"), asked))["results"]
        return [Hit(hit.get("id"), hit["text"], float(hit["score"])) for hit in found]

    def context(self, session_id: str, query: str, max_tokens: int, now: str | None) -> Context:
        """Return the context for a question."""
        asked = {"query": query, "max_tokens": max_tokens, **({} if now is None else {"now": now})}
        given = json.loads(self._ask("GET", _path(session_id, f"/context?{urlencode(asked)}")))
        return Context(str(given["context"]), _message_ids(given), int(given.get("tokens", 0)))

    def gauge(self, name: str) -> float:
        """Return what `/metrics` says a gauge is.

        Raises:
            RefusedError: It has no such gauge.
        """
        for line in self._ask("GET", "/metrics").decode().splitlines():
            parts = line.split()
            if line.startswith(name) and len(parts) == 2:  # noqa: PLR2004 - a name and a value
                return float(parts[1])
        raise RefusedError(f"{self.url}/metrics has no gauge {name}: name one with --queue-metric-name")

    def rss_mb(self) -> float | None:
        """Return the memory that the server has resident, in 10**6 bytes; None if `/metrics` does not say."""
        try:
            return round(self.gauge(RSS_GAUGE) / 1e6, 1)
        except RefusedError:
            return None

    def embedder(self) -> str:
        """Return the name of the model that the server embeds with; empty if `/metrics` does not say."""
        found = EMBEDDER_COUNT.findall(self._ask("GET", "/metrics").decode())
        return ", ".join(dict.fromkeys(found))

    def wait_until_healthy(self, timeout_s: float) -> None:
        """Return when the server is there.

        Raises:
            RefusedError: It is not, after so long.
        """
        until_s = time.perf_counter() + timeout_s
        while True:
            try:
                if self._http.send("GET", "/health")[0] == OK:
                    return
                problem = "is not healthy"
            except RefusedError as error:
                problem = str(error)
            if time.perf_counter() > until_s:
                raise RefusedError(f"no healthy server at {self.url} after {timeout_s:g} s: {problem}")
            time.sleep(0.1)

    def wait_until_embedded(self, gauge: str, *, timeout_s: float, settle_s: float | None, poll_s: float) -> None:
        """Return when no message waits for a vector: the gauge was 0 or less for `settle_s` together.

        None: for two seconds if it was above, else not at all, because engram's gauge counts what is not done.

        Raises:
            RefusedError: Some still do after `timeout_s`.
        """
        until_s = time.perf_counter() + timeout_s
        settled_from_s: float | None = None
        need_s = 0.0 if settle_s is None else settle_s
        while True:
            waiting = self.gauge(gauge)
            now_s = time.perf_counter()
            if waiting > 0:
                settled_from_s = None
                need_s = 2.0 if settle_s is None else settle_s
            else:
                settled_from_s = now_s if settled_from_s is None else settled_from_s
                if now_s - settled_from_s >= need_s:
                    return
            if now_s > until_s:
                raise RefusedError(f"{waiting:g} messages still wait for a vector after {timeout_s:g} s")
            time.sleep(poll_s)

    def _ask(self, method: str, path: str, body: Json = None) -> bytes:
        wait_s = WAIT_S
        for tries_left in reversed(range(TRIES_MAX)):
            status, answer = self._http.send(method, path, body)
            if status in {OK, NO_CONTENT}:
                return answer
            if status not in {REDIRECT, UNAVAILABLE} or not tries_left:
                raise RefusedError(f"{method} {path.partition('?')[0]} was answered with {status}: {_detail(answer)}")
            if status == REDIRECT:
                leader = urlsplit(answer.decode())
                self._http.move(f"{leader.scheme}://{leader.netloc}")
            else:
                time.sleep(wait_s)
                wait_s = min(2 * wait_s, WAIT_S_MAX)
        raise AssertionError("the last try returns or raises")


def _message_ids(given: Json) -> frozenset[str] | None:
    if "sections" not in given:
        return None
    return frozenset(
        item["id"] for part in given["sections"] if part["name"] in MESSAGE_SECTIONS for item in part["items"]
    )


def _batches(messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
    batch: list[Message] = []
    for message in messages:
        characters = sum(len(one.content) for one in batch) + len(message.content)
        if batch and (len(batch) == BATCH_MESSAGES_MAX or characters > BATCH_CHARACTERS_MAX):
            yield batch
            batch = []
        batch.append(message)
    if batch:
        yield batch


def _path(session_id: str, rest: str = "") -> str:
    return f"/sessions/{quote(session_id, safe='')}{rest}"


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _detail(answer: bytes) -> str:
    """Return what an error says of itself."""
    try:
        return str(json.loads(answer)["detail"])
    except (ValueError, KeyError, TypeError):
        return answer[:300].decode(errors="replace")
