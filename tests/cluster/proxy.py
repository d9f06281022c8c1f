"""The network between the nodes: it can lose what one node says to another, in one direction or in both.

In front of each node's gRPC port stands an ingress, and that is the address which the node announces. Whoever dials
it is told apart by the process that owns the dialling socket, so nothing of the traffic is looked at, and nothing of a
node needs to know. A cut is what a cable pulled out is: bytes stop, no connection ends, a new one is never answered.
"""

import asyncio
import socket
import struct
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Self, cast

HOST = "127.0.0.1"

_NO_FAREWELL = struct.pack("ii", 1, 0)
"""Lingering for no time: the other end gets a reset."""

Direction = tuple[int, int]
"""Sender and receiver."""


class Network:
    """The links between nodes.

    Args:
        find_dialler: Returns the node that owns the connection from the first local port to the second, None if none.
            It is called in a thread.
    """

    def __init__(self, find_dialler: Callable[[int, int], int | None]) -> None:
        self._find_dialler = find_dialler
        self._cuts: set[Direction] = set()
        self._links: set[_Link] = set()
        self._servers: dict[int, asyncio.Server] = {}
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        for server in self._servers.values():
            server.close()
        for link in list(self._links):
            link.abort()
        await self._group.__aexit__(kind, error, at)

    async def open(self, node_id: int, *, ingress_port: int, port: int) -> None:
        """Stand in front of `port`, where node `node_id` listens or will."""
        factory = partial(self._accepting_end, node_id, ingress_port, port)
        self._servers[node_id] = await asyncio.get_running_loop().create_server(factory, HOST, ingress_port)

    def cut(self, sender: int, receiver: int) -> None:
        """Let nothing that `sender` says reach `receiver` from now on."""
        self._cuts.add((sender, receiver))
        for link in self._links:
            link.adjust()

    def heal(self, *, reset: bool) -> None:
        """End all cuts. What was held flows on, or with `reset` the connections that were cut break."""
        cuts, self._cuts = self._cuts, set()
        for link in list(self._links):
            if reset and not cuts.isdisjoint(link.directions):
                link.abort()
            else:
                link.adjust()

    def is_cut(self, direction: Direction) -> bool:
        """Whether what the first says does not reach the second."""
        return direction in self._cuts

    def _accepting_end(self, node_id: int, ingress_port: int, port: int) -> asyncio.Protocol:
        return _Accepted(partial(self._accept, node_id, ingress_port, port))

    def _accept(self, node_id: int, ingress_port: int, port: int, end: "_End") -> None:
        self._group.create_task(self._admit(node_id, ingress_port, port, end))

    async def _admit(self, node_id: int, ingress_port: int, port: int, end: "_End") -> None:
        # In a thread: it reads files, and meanwhile the others talk on.
        dialler = await asyncio.to_thread(self._find_dialler, end.peer_port, ingress_port)
        if dialler is None or end.is_over:  # it hung up while it was looked for
            end.abort()
            return
        link = _Link(self, dialler, node_id, port, end)
        self._links.add(link)
        link.adjust()

    def forget(self, link: "_Link") -> None:
        """Let go of a link that has ended."""
        self._links.discard(link)

    def connect(self, link: "_Link") -> None:
        """Connect a link with the node that it leads to."""
        self._group.create_task(link.connect())


class _End(asyncio.Protocol):
    """One socket of a link. What arrives here goes out at the other end, unless it is cut."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: _End | None = None
        self.on_lost: Callable[[], None] = lambda: None
        self.is_over = False
        self._held = bytearray()
        self._is_cut = True
        """Until there is another end, and nothing between them."""
        self._is_full = False
        """The other end does not take more for now."""

    @property
    def peer_port(self) -> int:
        assert self.transport is not None
        port: int = self.transport.get_extra_info("peername")[1]
        return port

    def adjust(self, *, is_cut: bool) -> None:
        """Hold what arrives, or let it through."""
        self._is_cut = is_cut
        self._read_or_not()
        if not is_cut and self.other is not None and self.other.transport is not None:
            if self._held and not self.other.transport.is_closing():
                self.other.transport.write(bytes(self._held))
            self._held.clear()
            if self.is_over:
                self.other.transport.close()

    def abort(self) -> None:
        """Break the connection as a reset does, not as one that was closed."""
        if self.transport is not None and not self.is_over:
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_FAREWELL)
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._read_or_not()

    def data_received(self, data: bytes) -> None:
        if self._is_cut or self.other is None or self.other.transport is None:
            self._held += data
        elif not self.other.transport.is_closing():
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other.throttle(is_full=True)

    def resume_writing(self) -> None:
        if self.other is not None:
            self.other.throttle(is_full=False)

    def throttle(self, *, is_full: bool) -> None:
        """Take no more than the other end can pass on."""
        self._is_full = is_full
        self._read_or_not()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_over = True
        if not self._is_cut and self.other is not None and self.other.transport is not None:
            if exc is None:
                self.other.transport.close()
            else:
                self.other.abort()
        self.on_lost()

    def _read_or_not(self) -> None:
        if self.transport is None or self.is_over or self.transport.is_closing():
            return
        wants = not (self._is_cut or self._is_full)
        if wants and not self.transport.is_reading():
            self.transport.resume_reading()
        elif not wants and self.transport.is_reading():
            self.transport.pause_reading()


class _Accepted(_End):
    """The end that was dialled."""

    def __init__(self, accept: Callable[[_End], None]) -> None:
        super().__init__()
        self._accept = accept

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._accept(self)


class _Link:
    """One connection from node to node, in two halves."""

    def __init__(self, network: Network, dialler: int, dialled: int, port: int, near: _End) -> None:
        self.directions: frozenset[Direction] = frozenset({(dialler, dialled), (dialled, dialler)})
        self._network = network
        self._forth, self._back = (dialler, dialled), (dialled, dialler)
        self._port = port
        self._near = near
        self._far: _End | None = None
        self._is_connecting = False
        near.on_lost = self._lost

    def adjust(self) -> None:
        """Follow the network's cuts."""
        forth, back = self._network.is_cut(self._forth), self._network.is_cut(self._back)
        if self._far is not None:
            self._near.adjust(is_cut=forth)
            self._far.adjust(is_cut=back)
        elif not (forth or back or self._is_connecting):  # a handshake needs both ways
            self._is_connecting = True
            self._network.connect(self)

    async def connect(self) -> None:
        """Dial the node; who dialled here hears of it when nobody answers."""
        try:
            _, far = await asyncio.get_running_loop().create_connection(_End, HOST, self._port)
        except OSError:
            self.abort()
            return
        far.on_lost = self._lost
        far.other, self._near.other = self._near, far
        self._far = far
        self.adjust()
        if self._near.is_over:
            far.abort()

    def abort(self) -> None:
        """Break both halves."""
        self._near.abort()
        if self._far is not None:
            self._far.abort()
        self._network.forget(self)

    def _lost(self) -> None:
        if self._near.is_over and (self._far is None or self._far.is_over):
            self._network.forget(self)
