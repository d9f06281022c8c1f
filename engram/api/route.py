"""A route: one method on one path, and everything that the router and the OpenAPI document need to know of it."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from engram.api.calls import Call
from engram.api.parameters import Parameter
from engram.api.replies import Answer
from engram.api.schemas import MessagesDone

Handler = Callable[[Call], Awaitable[Answer]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    """One method on one path."""

    method: str
    path: str
    handler: Handler
    name: str
    """The operation id: what a generated client would call it."""
    tag: str
    about: str = ""
    """What it does, in a sentence; empty: the handler's docstring says it."""
    request: Sequence[Any] = ()
    """The structs that a body can be; empty: it takes none."""
    request_type: str | None = None
    """The media type of a body that is not JSON."""
    body_required: bool = True
    answer: Any = None
    """The struct of the answer; None: an answer without a body."""
    begins: bool = False
    """What is asked for goes on after the answer."""
    answer_type: str | None = None
    """The media type of an answer that is not JSON."""
    stream_type: str | None = None
    """The media type of the stream that the route answers with when that is asked for."""
    representation: Any = None
    """The resource that `Prefer: return=representation` asks for."""
    parameters: Sequence[Parameter] = ()
    request_headers: Sequence[str] = ()
    answer_headers: Sequence[str] = ()
    anywhere: bool = False
    """Every node answers it, although it is no GET."""
    problems: Sequence[str] = ()
    """Problem codes beyond those that every route shares."""
    example: Any = None
    """A body that works."""

    @property
    def is_about_memory(self) -> bool:
        """Whether it reads or writes what is remembered; the others are about the node itself."""
        return self.path.startswith("/sessions")

    @property
    def writes(self) -> bool:
        """Whether only the leader answers it."""
        return self.method != "GET" and not self.anywhere

    @property
    def may_be_empty(self) -> bool:
        """Whether the answer can be without a body: what a write answers when nothing else was asked for."""
        return self.answer_type is None and (self.answer is None or self.answer is MessagesDone)
