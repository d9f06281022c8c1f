"""The HTTP application: finds the route, checks what came with it, calls the handler, answers, counts."""

import itertools
import logging
from asyncio import CancelledError
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from aiohttp import hdrs, web

from engram.api import as_of
from engram.api.calls import Call
from engram.api.errors import ReadOnlyError
from engram.api.middleware import REQUEST_ID, respond, respond_problem, served_by_failing
from engram.api.parameters import LINEARIZABLE, Parameter, Value, parse_query
from engram.api.paths import Paths, split_target
from engram.api.redirects import elsewhere
from engram.api.replies import Answer, Stream
from engram.api.route import Route
from engram.api.routes import ROUTES
from engram.api.services import Services
from engram.api.streaming import send
from engram.commands import ID_CHARACTERS_MAX, check_id
from engram.errors import EngramError, FatalError, NoLeaderError, NotLeaderError

_log = logging.getLogger(__name__)

UNMATCHED = "unmatched"
"""The route of every path that none has: clients make paths up, and those would fill the metrics."""

REQUEST_ID_CHARACTERS_MAX = 128

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE"})
_NO_VALUES: Mapping[str, Value] = {}


class _Served(NamedTuple):
    """A route as the router hands it out."""

    route: Route
    declared: Mapping[str, Parameter]
    placeholders: Sequence[str]
    writes: bool


class Application:
    """Answers requests; whatever goes wrong, the answer is one that a client can work with."""

    def __init__(self, services: Services, routes: Sequence[Route]) -> None:
        self._services = services
        self._run = services.new_id()
        self._numbers = itertools.count(1)
        self._paths: Paths[_Served] = Paths()
        self._observers: dict[tuple[str, str, int], Callable[[float], None]] = {}
        for route in routes:
            declared = {parameter.name: parameter for parameter in route.parameters}
            placeholders = [segment[1:-1] for segment in route.path.split("/") if segment.startswith("{")]
            self._paths.add(route.method, route.path, _Served(route, declared, placeholders, route.writes))

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        services = self._services
        started_s = services.clock.monotonic_s()
        request_id = self._request_id(request)
        template = UNMATCHED
        response: web.StreamResponse
        try:
            path, query = split_target(request.raw_path)
            branch, segments = self._paths.locate(path)
            template = branch.template
            served = branch.route(request.method)
            call = Call(request, request_id, services, segments)
            reply = await self._serve(served, call, query)
            if isinstance(reply, Stream):
                response = await send(reply, request, request_id=request_id, read_index=call.read_index)
            else:
                response = respond(reply, request_id=request_id, read_index=call.read_index)
        except EngramError as error:
            response = self._refuse(error, request, request_id, template)
        except (CancelledError, ConnectionError):
            raise  # nobody is there to be answered
        except Exception as error:  # noqa: BLE001 - one of the named task boundaries: log, count, go on
            response = self._refuse(FatalError(type(error).__name__), request, request_id, template)
        self._count(request.method, template, response.status, services.clock.monotonic_s() - started_s)
        return response

    def end_streams(self) -> None:
        """Let the streams of events end: they would last for ever."""
        self._services.streams.end()

    def refuse_unread(self, error: EngramError) -> web.Response:
        """Return the response to bytes that were no request."""
        response = respond_problem(
            error,
            request_id=f"{self._run}-{next(self._numbers):x}",
            applied_index=self._services.reads.applied_index,
        )
        response.force_close()
        self._count("other", UNMATCHED, response.status, 0.0)
        return response

    async def _serve(self, served: _Served, call: Call, query: str) -> Answer:
        cluster = self._services.cluster
        if served.writes and self._services.read_only is not None:
            raise ReadOnlyError(self._services.read_only)
        if cluster is not None and served.writes and not cluster.is_leader:  # before the body: it can be megabytes
            raise elsewhere(cluster, call.request.raw_path)
        try:
            return await self._answer(served, call, query)
        except NotLeaderError as error:  # it led when the request came
            if served.writes:
                raise elsewhere(cluster, call.request.raw_path) from None
            raise NoLeaderError(str(error)) from None

    async def _answer(self, served: _Served, call: Call, query: str) -> Answer:
        for name, segment in zip(served.placeholders, call.segments, strict=True):
            if not (segment.isprintable() and 0 < len(segment) <= ID_CHARACTERS_MAX):  # the rest takes longer
                check_id(name, segment)
        if query or served.declared:
            call.values = parse_query(query, call.request.headers, served.declared)
        await self._wait_for_index(served.route, call)
        return await as_of.answer(call, served.route.handler)

    async def _wait_for_index(self, route: Route, call: Call) -> None:
        # What is still being folded after a start is not unknown: an early answer would deny what was acknowledged.
        # Standalone, an acknowledged write has been applied here before that: a local read is linearizable too.
        services = self._services
        wanted = services.floor_index if route.is_about_memory else 0
        asked = call.values.get("min_index")
        if isinstance(asked, int):
            wanted = max(wanted, asked)
        if services.cluster is not None and call.values.get("consistency") == LINEARIZABLE:
            wanted = max(wanted, await services.cluster.read_index())
        if wanted > call.read_index:
            await services.applied.wait_applied(wanted, services.wait_s)
            call.read_index = services.reads.applied_index

    def _refuse(self, error: EngramError, request: web.BaseRequest, request_id: str, template: str) -> web.Response:
        response = respond_problem(error, request_id=request_id, applied_index=self._services.reads.applied_index)
        if hdrs.EXPECT in request.headers and not request.content.is_eof():
            response.force_close()  # whether the body comes now is the client's choice, and cannot be told
        if served_by_failing(response):
            _log.error(
                "request failed",
                exc_info=True,
                extra={"request_id": request_id, "method": request.method, "route": template, "code": error.code},
            )
        else:
            _log.debug("request refused", extra={"request_id": request_id, "route": template, "code": error.code})
        return response

    def _request_id(self, request: web.BaseRequest) -> str:
        sent = request.headers.get(REQUEST_ID)
        if sent and len(sent) <= REQUEST_ID_CHARACTERS_MAX and sent.isascii() and sent.isprintable():
            return sent
        return f"{self._run}-{next(self._numbers):x}"

    def _count(self, method: str, template: str, status: int, seconds: float) -> None:
        observe = self._observers.get((method, template, status))
        if observe is None:
            observe = self._observer(method if method in _METHODS else "other", template, status)
            if method in _METHODS:
                self._observers[method, template, status] = observe
        observe(seconds)

    def _observer(self, method: str, template: str, status: int) -> Callable[[float], None]:
        metrics = self._services.metrics
        total = metrics.http_requests_total.labels(method, template, str(status))
        duration = metrics.http_request_duration_seconds.labels(method, template)

        def observe(seconds: float) -> None:
            total.inc()
            duration.observe(seconds)

        return observe


def build(services: Services) -> Application:
    """Return the application that serves every route of the table with `services`."""
    return Application(services, ROUTES)
