"""One request on its way through a handler."""

import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

import msgspec
from aiohttp import web

from engram.api.bodies import check_media_type, decode_json, read_bytes, read_json_bytes
from engram.api.parameters import Value
from engram.api.services import Core, Searches, Services
from engram.api.services import Reads as Present
from engram.events import TENANT_DEFAULT
from engram.projections.past import PastReads
from engram.recall.lookback import Past, PastSearches
from engram.recall.reader import ContextReader

Body = TypeVar("Body")

_wants_representation = re.compile(r"(^|[,;\s])return\s*=\s*\"?representation\"?\s*($|[,;])", re.IGNORECASE)


_NO_VALUES: Mapping[str, Value] = {}


class Call:
    """A request that has found its route: its parts, checked, and the services to answer it with."""

    __slots__ = ("past", "read_index", "request", "request_id", "segments", "services", "tenant", "values")

    def __init__(
        self,
        request: web.BaseRequest,
        request_id: str,
        services: Services,
        segments: Sequence[str],
    ) -> None:
        self.request = request
        self.request_id = request_id
        self.services = services
        self.segments = segments
        self.tenant = TENANT_DEFAULT
        self.read_index = services.reads.applied_index
        """What a read sees at least; taken before it, so that it never promises what came later."""
        self.values: Mapping[str, Value] = _NO_VALUES
        self.past: Past | None = None
        """What to answer by when the call names an earlier moment."""

    @property
    def reads(self) -> Present | PastReads:
        """The read models, as of the moment that the call is about."""
        return self.services.reads if self.past is None else self.past.reads

    @property
    def core(self) -> Core | PastReads:
        """Who answers for core memory, as of that moment."""
        return self.services.core if self.past is None else self.past.reads

    @property
    def searches(self) -> Searches | PastSearches:
        """The searcher, as of that moment."""
        return self.services.searches if self.past is None else self.past.searches

    @property
    def contexts(self) -> ContextReader:
        """The reader of contexts, as of that moment."""
        return self.services.contexts if self.past is None else self.past.contexts

    async def body(self, decoder: "msgspec.json.Decoder[Body]") -> Body:
        """Return the JSON body; RequestError when it cannot be one of that type."""
        return decode_json(await self.json_bytes(), decoder)

    async def body_if_any(self, decoder: "msgspec.json.Decoder[Body]") -> Body | None:
        """Return the JSON body like `body`; None when there is none."""
        data = await read_bytes(self.request, self.services.body_deadline_s)
        if not data:
            return None
        check_media_type(self.request)
        return decode_json(data, decoder)

    async def json_bytes(self) -> bytes:
        """Return the JSON body, not decoded."""
        return await read_json_bytes(self.request, self.services.body_deadline_s)

    def text(self, name: str) -> str | None:
        """Return a textual query parameter."""
        value = self.values[name]
        assert value is None or isinstance(value, str)
        return value

    def whole(self, name: str) -> int:
        """Return a whole or boolean query parameter that has a default."""
        value = self.values[name]
        assert isinstance(value, int)
        return value

    def now_ms(self) -> int:
        """Return the time that "last week" is relative to: the query's `now`, else that of the moment asked about."""
        value = self.values["now"]
        assert value is None or isinstance(value, int)
        return self.present_ms() if value is None else value

    def present_ms(self) -> int:
        """Return the time of the moment that the call is about: without one, the clock's."""
        return self.services.clock.now_ms() if self.past is None else self.past.at_ms

    def number(self, name: str) -> float | None:
        """Return a numeric query parameter."""
        value = self.values[name]
        assert value is None or isinstance(value, int | float)
        return value

    def wants_representation(self) -> bool:
        """Return whether a write should answer with the resource (RFC 7240)."""
        prefer = self.request.headers.get("Prefer")
        return prefer is not None and _wants_representation.search(prefer) is not None
