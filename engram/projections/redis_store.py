"""The one door to Redis: a few atomic questions and one kind of write, each with a deadline.

Every transaction replaces the state of the key space, under the condition that the state is the one that was written
last (WATCH): a server that was flushed, restored, replaced or written to by somebody else is noticed before anything
is added to it. Every read brings the state along, in the same transaction.

Nothing of an address's user or password is ever part of a message.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from engram.errors import ConfigError
from engram.projections.redis_keys import KeySpace, SessionName
from engram.projections.redis_rows import State, Stored, decode_state, encode_state

CONNECT_S: Final = 2.0
STEP_S: Final = 5.0
"""How long one step of the feed may take. Readers have a deadline of their own, and it is shorter."""

READERS_MAX: Final = 32
"""Connections for reads; more reads at the same time take turns."""

SCAN_KEYS: Final = 1_000
"""Keys that the server looks at in one step: it answers nobody else meanwhile, for half a millisecond."""

ERROR_CHARACTERS_MAX: Final = 300

OPTION_PREFIX: Final = "ssl_"
"""What an address may say behind its question mark; deadlines, retries and the protocol are settled here."""


class RedisFailedError(Exception):
    """The server is away, slow, or refused; repeating the call later is safe."""


class RedisChangedError(Exception):
    """The state of the key space is not the one that was written last. Nothing was written."""


class Put(NamedTuple):
    """A session to be written."""

    name: SessionName
    header: bytes
    messages: Sequence[bytes]
    is_whole: bool
    """The list is replaced by `messages`, else they are added to its end."""
    core: dict[str, bytes]


class Probe(NamedTuple):
    """What is there of a session."""

    header: bytes | None
    messages: int
    facts: int


class Scanned(NamedTuple):
    """A part of the key space."""

    cursor: int
    """0: that was the last part."""
    names: set[SessionName]
    strays: list[bytes]
    """Keys of this key space that mean nothing."""


class Persistence(NamedTuple):
    """What the server does with its disk."""

    appends: bool
    """It writes an append-only file."""
    snapshots: bool
    """There may be a snapshot file."""
    is_writing: bool
    """One of both is being written."""
    has_failed: bool
    """The last attempt to write one of them failed."""


class RedisStore:
    """The key space of one node on one server.

    Raises:
        ConfigError: The address has an option that the driver does not know.
    """

    def __init__(self, url: str, keys: KeySpace, *, window: int) -> None:
        self.keys = keys
        self.window = window
        self._driver = _driver()
        self._secrets = _secrets(url)
        self._writer = self._client(url, connections=2)
        self._reader = self._client(url, connections=READERS_MAX)

    async def close(self) -> None:
        """Close all connections; the next call opens new ones."""
        for client in (self._writer, self._reader):
            await client.aclose()
            await client.connection_pool.disconnect()

    async def state(self) -> State | None:
        """Return the state of the key space; None when there is none that was written by this version."""
        async with self._guarded():
            return decode_state(await self._writer.get(self.keys.state))

    async def begin(self, state: State) -> None:
        """Write a state, whatever is there."""
        async with self._guarded():
            await self._writer.set(self.keys.state, encode_state(state))

    async def write(
        self, before: State, after: State, puts: Sequence[Put] = (), removals: Sequence[SessionName] = ()
    ) -> None:
        """Write and remove sessions, and replace the state `before` by `after`: all of it or nothing.

        Raises:
            RedisChangedError: The state is not `before`.
            RedisFailedError: It may or may not have been done: the state tells.
        """
        async with self._guarded(), self._writer.pipeline(transaction=True) as pipeline:
            await pipeline.watch(self.keys.state)
            if await pipeline.get(self.keys.state) != encode_state(before):
                raise RedisChangedError("the state of Redis is not the one that was written last")
            pipeline.multi()
            pipeline.set(self.keys.state, encode_state(after))
            for put in puts:
                self._put(pipeline, put)
            for name in removals:
                pipeline.delete(*self.keys.of(name))
            await pipeline.execute()

    async def remove_strays(self, strays: Sequence[bytes]) -> None:
        """Remove keys by their names."""
        async with self._guarded():
            await self._writer.delete(*strays)

    async def read(self, name: SessionName, limit: int) -> Stored:
        """Return the state, and of a session its header, its last `limit` messages and its facts, as of one moment."""
        keys = self.keys.of(name)
        async with self._guarded(), self._reader.pipeline(transaction=True) as pipeline:
            pipeline.get(self.keys.state)
            pipeline.get(keys.header)
            if limit:
                pipeline.lrange(keys.messages, -limit, -1)
            pipeline.hgetall(keys.core)
            state, header, *messages, core = await pipeline.execute()
        return Stored(state, header, messages[0] if limit else (), core)

    async def probe(self, names: Sequence[SessionName]) -> list[Probe]:
        """Return what is there of each of `names`."""
        async with self._guarded(), self._writer.pipeline(transaction=False) as pipeline:
            for name in names:
                keys = self.keys.of(name)
                pipeline.get(keys.header)
                pipeline.llen(keys.messages)
                pipeline.hlen(keys.core)
            answers = await pipeline.execute(raise_on_error=False)
        # A key of another type answers with an error: then it is not what it should be.
        plain = [None if isinstance(answer, Exception) else answer for answer in answers]
        return [
            Probe(header, messages or 0, facts or 0) for header, messages, facts in zip(*[iter(plain)] * 3, strict=True)
        ]

    async def scan(self, cursor: int) -> Scanned:
        """Return the sessions that a part of the server's keys belongs to; begin with the cursor 0."""
        async with self._guarded():
            cursor, keys = await self._writer.scan(cursor, match=self.keys.pattern, count=SCAN_KEYS)
        names: set[SessionName] = set()
        strays: list[bytes] = []
        for key in keys:
            name = self.keys.session_of(key.decode(errors="replace"))
            if name is not None:
                names.add(name)
            elif key != self.keys.state.encode():
                strays.append(key)
        return Scanned(int(cursor), names, strays)

    async def persistence(self) -> Persistence:
        """Return what the server keeps on its disk."""
        async with self._guarded():
            facts = await self._writer.info("persistence")
            appends = bool(facts.get("aof_enabled"))
            loaded = not appends and bool(facts.get("rdb_last_load_keys_loaded"))
            snapshots = loaded or bool(facts.get("rdb_saves")) or await self._saves()
        writing = ("aof_rewrite_in_progress", "aof_rewrite_scheduled", "rdb_bgsave_in_progress")
        ends = ("aof_last_bgrewrite_status", "rdb_last_bgsave_status")
        return Persistence(
            appends=appends,
            snapshots=snapshots,
            is_writing=any(facts.get(name) for name in writing),
            has_failed=any(facts.get(name, "ok") != "ok" for name in ends),
        )

    async def rewrite_files(self, persistence: Persistence) -> None:
        """Let the server write its files anew, without what was removed; `persistence` tells when it is done."""
        async with self._guarded():
            if persistence.appends:
                await self._writer.bgrewriteaof()
            if persistence.snapshots:
                await self._writer.bgsave(schedule=True)

    async def _saves(self) -> bool:
        """Return whether the server writes snapshots by itself; servers that others run may not say."""
        try:
            return bool((await self._writer.config_get("save")).get("save"))
        except self._driver.ResponseError:
            return False

    def _put(self, pipeline: Any, put: Put) -> None:
        keys = self.keys.of(put.name)
        pipeline.set(keys.header, put.header)
        if put.is_whole:
            pipeline.delete(keys.messages)
        if put.messages:
            pipeline.rpush(keys.messages, *put.messages)
            if not put.is_whole:
                pipeline.ltrim(keys.messages, -self.window, -1)
        pipeline.delete(keys.core)
        if put.core:
            pipeline.hset(keys.core, mapping=put.core)

    def _client(self, url: str, *, connections: int) -> Any:
        for option in parse_qs(urlsplit(url).query):
            if not option.startswith(OPTION_PREFIX):
                raise ConfigError(
                    f"REDIS_URL (its value is not shown) has the option {option!r}: it takes those of TLS only, as "
                    "in ?ssl_ca_certs=/path/ca.pem"
                )
        try:
            pool = self._driver.asyncio.BlockingConnectionPool.from_url(
                url,
                max_connections=connections,
                timeout=STEP_S,
                # Its own deadlines make a task of every command, and can lose a cancellation on the way (Python 3.11's
                # wait_for); there is one around each step instead.
                socket_timeout=None,
                socket_connect_timeout=CONNECT_S,
                socket_keepalive=True,
                protocol=2,
                decode_responses=False,
                driver_info=None,  # it would read its own version from the disk for every connection
                # Whether and when to try again is the feed's business.
                retry=self._driver.asyncio.retry.Retry(self._driver.backoff.NoBackoff(), 0),
            )
            pool.make_connection()
        except (TypeError, ValueError, self._driver.RedisError) as error:
            raise ConfigError(f"REDIS_URL (its value is not shown) cannot be used: {self._told(error)}") from None
        return self._driver.asyncio.Redis.from_pool(pool)

    @asynccontextmanager
    async def _guarded(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(STEP_S):
                yield
        except self._driver.WatchError as error:
            raise RedisChangedError("the state of Redis was replaced by somebody else") from error
        except (self._driver.RedisError, OSError, TimeoutError) as error:
            raise RedisFailedError(self._told(error)) from None

    def _told(self, error: BaseException) -> str:
        said = str(error)[:ERROR_CHARACTERS_MAX] or f"no answer within {STEP_S:g} s"
        for secret in self._secrets:
            said = said.replace(secret, "***")
        return f"{type(error).__name__}: {said}"


def _driver() -> Any:
    """Import the driver: a tenth of a second that nodes without Redis do without."""
    import redis.asyncio  # noqa: PLC0415

    return redis


def _secrets(url: str) -> Sequence[str]:
    """Return the password of an address, as it stands there and as it is sent."""
    password = urlsplit(url).password
    return [password, unquote(password)] if password else []
