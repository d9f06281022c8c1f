"""Paths: percent-decoding that takes nothing on trust, and the tree that finds a route."""

import re
from typing import Generic, TypeVar
from urllib.parse import quote, unquote_to_bytes

from engram.api.errors import MalformedError, MethodError, UnknownPathError

_bad_escape = re.compile(r"%(?![0-9A-Fa-f]{2})")
_absolute = re.compile(r"^https?://[^/?#]*", re.IGNORECASE)

PathRoute = TypeVar("PathRoute")


def decode_percent(where: str, text: str) -> str:
    """Return `text` percent-decoded once.

    Raises:
        MalformedError: A `%` is not followed by two hexadecimal digits, or the bytes are not UTF-8.
    """
    if "%" not in text:
        return text
    bad = _bad_escape.search(text)
    if bad is not None:
        raise MalformedError(
            f"{where} has {text[bad.start() : bad.start() + 3]!r}; a percent sign takes two hexadecimal digits",
            code="invalid_encoding",
        )
    try:
        return unquote_to_bytes(text.encode("utf-8", "surrogateescape")).decode()
    except UnicodeDecodeError as error:
        raise MalformedError(f"{where} is not UTF-8 at byte {error.start}", code="invalid_encoding") from None


def encode_segment(text: str) -> str:
    """Return `text` as one path segment."""
    return quote(text, safe="-._~!$&'()*+,;=:@")


def encode_header(text: str) -> str:
    """Return `text` as a header's value: as it is, but for what is not printable ASCII, percent and space."""
    if text.isascii() and "%" not in text and " " not in text:
        return text
    return quote(text, safe="!\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~")


def split_target(target: str) -> tuple[str, str]:
    """Return path and query of a request target, both as they came; the query without its `?`."""
    if not target.startswith("/"):
        target = _absolute.sub("", target, count=1) or "/"
    path, _, query = target.partition("?")
    return path, query


class Branch(Generic[PathRoute]):
    """What can follow one beginning of a path; with a route of its own, a path can end here."""

    __slots__ = ("fixed", "methods", "placeholder", "template")

    def __init__(self, template: str) -> None:
        self.template = template
        self.fixed: dict[str, Branch[PathRoute]] = {}
        self.placeholder: Branch[PathRoute] | None = None
        self.methods: dict[str, PathRoute] = {}

    def route(self, method: str) -> PathRoute:
        """Return the route for `method`; HEAD is served by GET.

        Raises:
            MethodError: This path takes other methods.
        """
        route = self.methods.get("GET" if method == "HEAD" else method)
        if route is None:
            raise MethodError(method, sorted({*self.methods, "HEAD"} if "GET" in self.methods else self.methods))
        return route


class Paths(Generic[PathRoute]):
    """The routes as a tree of path segments. A fixed segment wins over a placeholder."""

    def __init__(self) -> None:
        self._root: Branch[PathRoute] = Branch("/")

    def add(self, method: str, template: str, route: PathRoute) -> None:
        """Add a route for a path such as `/sessions/{session_id}/messages`."""
        branch = self._root
        for segment in template[1:].split("/"):
            if segment.startswith("{"):
                branch.placeholder = branch.placeholder or Branch(template)
                branch = branch.placeholder
            else:
                branch = branch.fixed.setdefault(segment, Branch(template))
        branch.template = template
        assert method not in branch.methods, f"{method} {template} stands twice"
        branch.methods[method] = route

    def locate(self, path: str) -> tuple[Branch[PathRoute], list[str]]:
        """Return where a path ends, and what its placeholders stand for.

        Raises:
            MalformedError: The percent-encoding is wrong.
            UnknownPathError: No route has this path.
        """
        branch = self._root
        segments: list[str] = []
        for raw in path[1:].split("/"):
            segment = decode_percent("the path", raw)
            following = branch.fixed.get(segment)
            if following is None:
                following = branch.placeholder
                segments.append(segment)
            if following is None:
                raise UnknownPathError("no route has this path")
            branch = following
        if not branch.methods:
            raise UnknownPathError("no route has this path")
        return branch, segments
