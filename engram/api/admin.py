"""Verifying and rebuilding this node's read models while it runs: a job is begun by a POST, and looked at by a GET."""

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from engram.api.calls import Call
from engram.api.replies import Reply, say
from engram.api.route import Route
from engram.api.times import format_time
from engram.errors import NotReadyError
from engram.projections.upkeep import Job, Target, Upkeep, What

Count = Annotated[int, Meta(ge=0)]


class RebuildWanted(Struct, kw_only=True):
    """What to drop and write again."""

    what: Annotated[Target, Meta(description="`all`: one after the other, redis only where there is one")]


class FindingView(Struct, kw_only=True):
    """The first key that differs in a read model."""

    projection: Literal["primary", "lancedb", "redis"]
    model: Annotated[str, Meta(description="the read model")]
    session_id: str | None
    key: Annotated[str, Meta(description="what within the session; empty: the session itself")]
    index: Annotated[int, Meta(ge=0, description="the log entry that made it what it should be; 0: none alone")]
    what: str


class JobView(Struct, kw_only=True):
    """The job that runs on this node, or the last one of this kind."""

    what: Annotated[What, Meta(description="what is done")] | None
    state: Annotated[Literal["none", "running", "done", "failed"], Meta(description="none: there was none yet")]
    step: str
    done: Count
    total: Annotated[int, Meta(ge=0, description="of the step: entries, rows or sessions")]
    started_at: str | None
    ended_at: str | None
    index: Annotated[int, Meta(ge=0, description="the log entry that the comparison reached")]
    findings: Annotated[list[FindingView], Meta(description="what differs; of `done` and none: all is as it should be")]
    notes: Annotated[list[str], Meta(description="what was not compared, and why; what a store says that is away")]
    error: Annotated[str, Meta(description="why it failed")] | None


_wanted = msgspec.json.Decoder(RebuildWanted)


async def start_verify(call: Call) -> Reply:
    """Begin to fold the log again and to compare every read model of this node with it; changes nothing."""
    return say(_view(_upkeep(call).start("verify")), is_begun=True)


async def get_verify(call: Call) -> Reply:
    """Return how far the verification is, or what the last one found."""
    return say(_view(_upkeep(call).last_verify))


async def start_rebuild(call: Call) -> Reply:
    """Begin to drop a projection of this node, and to write it again: the read models from the log, others from them."""
    upkeep = _upkeep(call)
    wanted = await call.body(_wanted)
    return say(_view(upkeep.start(wanted.what)), is_begun=True)


async def get_rebuild(call: Call) -> Reply:
    """Return how far the rebuild is, or what became of the last one."""
    return say(_view(_upkeep(call).last_rebuild))


def admin_routes() -> Sequence[Route]:
    """Return the routes; every node answers for itself."""
    verify, rebuild, tag = "/admin/verify", "/admin/rebuild", "service"
    return (
        Route(
            method="POST", path=verify, handler=start_verify, name="start_verify", tag=tag, anywhere=True,
            answer=JobView, begins=True, problems=["job_running", "not_ready"],
        ),
        Route(
            method="GET", path=verify, handler=get_verify, name="get_verify", tag=tag, answer=JobView,
            problems=["not_ready"],
        ),
        Route(
            method="POST", path=rebuild, handler=start_rebuild, name="start_rebuild", tag=tag, anywhere=True,
            request=[RebuildWanted], answer=JobView, begins=True, problems=["job_running", "not_ready"],
        ),
        Route(
            method="GET", path=rebuild, handler=get_rebuild, name="get_rebuild", tag=tag, answer=JobView,
            problems=["not_ready"],
        ),
    )  # fmt: skip


def _upkeep(call: Call) -> Upkeep:
    upkeep = call.services.upkeep
    if upkeep is None:
        raise NotReadyError("nothing is verified or rebuilt here")
    return upkeep


def _view(job: Job | None) -> JobView:
    if job is None:
        return JobView(
            what=None, state="none", step="", done=0, total=0, started_at=None, ended_at=None, index=0, findings=[],
            notes=[], error=None,
        )  # fmt: skip
    return JobView(
        what=job.what,
        state=job.state,
        step=job.step,
        done=job.done,
        total=job.total,
        started_at=format_time(job.started_at_ms),
        ended_at=None if job.ended_at_ms is None else format_time(job.ended_at_ms),
        index=job.log_index,
        findings=[
            FindingView(
                projection=each.projection,
                model=each.model,
                session_id=each.session_id,
                key=each.key,
                index=each.log_index,
                what=each.what,
            )
            for each in job.findings
        ],
        notes=list(job.notes),
        error=job.error,
    )
