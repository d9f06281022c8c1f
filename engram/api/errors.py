"""What can be wrong with a request before a handler sees it. Never leaves the package.

RequestError
    MalformedError          not what HTTP, JSON or the percent-encoding allow: code says which
    UnknownPathError        no route has this path
    MethodError             the path is known, the method is not
    MediaTypeError          the body is not JSON in UTF-8
    SlowBodyError           the body did not arrive in time
    ExpectationError        an `Expect` header that nobody can meet
    ReadOnlyError           nothing can be written here
NotReadyError
    UnreadyError            GET /ready: what is missing
EngramError
    ImportStoppedError      an import broke off, and where
NotLeaderError
    RedirectError           where the leader takes the request
"""

from collections.abc import Sequence

from engram.api.schemas import DependencyView
from engram.errors import EngramError, NotLeaderError, NotReadyError, RequestError


class MalformedError(RequestError):
    """Not what HTTP, JSON or the percent-encoding allow."""

    def __init__(self, detail: str, *, code: str) -> None:
        super().__init__(detail)
        self.code = code


class UnknownPathError(RequestError):
    """No route has this path."""

    code = "not_found"


class MethodError(RequestError):
    """The path is known, the method is not; `allowed` is what it takes."""

    code = "method_not_allowed"

    def __init__(self, method: str, allowed: Sequence[str]) -> None:
        super().__init__(f"the method is {method}; this path takes {', '.join(allowed)}")
        self.allowed = allowed


class MediaTypeError(RequestError):
    """The body is not JSON in UTF-8."""

    code = "unsupported_media_type"


class SlowBodyError(RequestError):
    """The body did not arrive in time."""

    code = "request_timeout"


class ExpectationError(RequestError):
    """An `Expect` header that nobody can meet."""

    code = "expectation_failed"


class ReadOnlyError(RequestError):
    """Nothing can be written here: what is served is the past."""

    code = "read_only"


class UnreadyError(NotReadyError):
    """A dependency that the node cannot do without is away; all of them are listed."""

    def __init__(self, dependencies: Sequence[DependencyView]) -> None:
        away = [dependency.name for dependency in dependencies if dependency.required and not dependency.ready]
        super().__init__(f"not ready: {', '.join(away)}")
        self.dependencies = dependencies


class ImportStoppedError(EngramError):
    """An import broke off for `error`: what stands before `line` is imported; sending it all again goes on there."""

    def __init__(self, error: EngramError, line: int) -> None:
        super().__init__(f"line {line}: {error}; what stands before it is imported: send the same again")
        self.code = error.code


class RedirectError(NotLeaderError):
    """Another node leads, and takes the same request at `location`."""

    def __init__(self, leader_id: int, location: str) -> None:
        super().__init__(leader_id)
        self.location = location
