"""Waiting in a drill: for a thing to become so, and for a moment that the seed picked."""

import asyncio
from collections.abc import Awaitable, Callable

POLL_S = 0.02


class NeverError(AssertionError):
    """What had to become so did not, in the time that it was given."""


async def pause(seconds: float) -> None:
    """Let the others run for so long: a client's time to think, or to wait before it tries again."""
    over = asyncio.Event()
    timer = asyncio.get_running_loop().call_later(seconds, over.set)
    try:
        await over.wait()
    finally:
        timer.cancel()


async def wait_until(
    holds: Callable[[], Awaitable[bool]], claim: str, *, within_s: float, every_s: float = POLL_S
) -> None:
    """Ask again and again until `holds` says yes.

    Raises:
        NeverError: It does not within `within_s`; the message is `claim`.
    """
    try:
        async with asyncio.timeout(within_s):
            while not await holds():
                await pause(every_s)
    except TimeoutError:
        raise NeverError(f"not within {within_s:g} s: {claim}") from None
