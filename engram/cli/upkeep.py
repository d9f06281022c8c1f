"""`engram verify --url` and `engram rebuild --url`: jobs of a running node, begun and watched over HTTP."""

import asyncio
from typing import Final

import aiohttp

from engram.api.admin import FindingView, JobView
from engram.cli.progress import Progress
from engram.cli.remote import CONNECT_S, RemoteError, decoded, refusal

POLL_S: Final = 0.5
ANSWER_S: Final = 30.0
"""A node that does not say within this time how far it is has failed."""

_WRITTEN: Final = {"projections": "the read models are", "lancedb": "lancedb is", "redis": "redis is"}


async def verify(url: str, progress: Progress) -> int:
    """Let the node at `url` verify itself, and print what differs; return 1 if anything does.

    Raises:
        RemoteError: It does not answer, refuses, or the job failed.
    """
    job = await _job(url, "/admin/verify", None, progress)
    for finding in job.findings:
        progress.say(_line(finding))
    if job.findings:
        progress.say("1 problem" if len(job.findings) == 1 else f"{len(job.findings)} problems")
        return 1
    progress.say(f"everything is as the log says, up to entry {job.index}")
    return 0


async def rebuild(url: str, what: str, progress: Progress) -> int:
    """Let the node at `url` drop a projection and write it again.

    Raises:
        RemoteError: It does not answer, refuses, or the job failed.
    """
    await _job(url, "/admin/rebuild", {"what": what}, progress)
    progress.say("everything is written again" if what == "all" else f"{_WRITTEN[what]} written again")
    return 0


async def _job(url: str, path: str, body: object, progress: Progress) -> JobView:
    timeout = aiohttp.ClientTimeout(total=ANSWER_S, connect=CONNECT_S)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as client:
            async with client.post(url + path, json=body) as answer:
                job = await _decoded(url, answer)
            return await _watched(url, path, client, job, progress)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise RemoteError(f"no node answers at {url}{path}: {str(error) or type(error).__name__}") from None


async def _watched(url: str, path: str, client: aiohttp.ClientSession, job: JobView, progress: Progress) -> JobView:
    """Show how far a job is until it is over."""
    while job.state == "running" and job.total == 0:  # it has not begun
        await asyncio.sleep(POLL_S / 10)
        async with client.get(url + path) as answer:
            job = await _decoded(url, answer)
    while job.state == "running":
        with progress.step(job.step, job.total) as advance:
            step, done = job.step, 0
            while job.step == step:
                advance(job.done - done)
                done = job.done
                await asyncio.sleep(POLL_S)
                async with client.get(url + path) as answer:
                    job = await _decoded(url, answer)
                if job.state != "running":
                    break
    for note in job.notes:
        progress.say(note)
    if job.state != "done":
        raise RemoteError(f"the job of {url} failed: {job.error or 'the node was started anew meanwhile'}")
    return job


async def _decoded(url: str, answer: aiohttp.ClientResponse) -> JobView:
    data = await answer.read()
    if not answer.ok:
        raise refusal(url, answer.status, data)
    return decoded(url, data, JobView)


def _line(finding: FindingView) -> str:
    place = [] if finding.session_id is None else [f"session {finding.session_id}"]
    place += [finding.key] if finding.key else []
    place += [f"entry {finding.index}"] if finding.index else []
    name = finding.model if finding.projection == "primary" else f"{finding.projection}: {finding.model}"
    return f"{name}: {', '.join(place) or 'the whole'}: {finding.what}"
