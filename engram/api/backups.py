"""Copies of the log: a backup as it is, an export as events."""

from engram.api.calls import Call
from engram.api.replies import Stream
from engram.errors import NotReadyError
from engram.moving.copying import Copier

BACKUP_TYPE = "application/octet-stream"
EXPORT_TYPE = "application/x-ndjson"


async def get_backup(call: Call) -> Stream:
    """Return a backup of the log, consistent at one index, while writes go on."""
    copier = await _copier(call)
    return Stream(copier.backup(), BACKUP_TYPE)


async def get_export(call: Call) -> Stream:
    """Return the events of the log, or of one session, as lines of JSON."""
    copier = await _copier(call)
    return Stream(copier.export(after=call.whole("after"), session_id=call.text("session_id")), EXPORT_TYPE)


async def _copier(call: Call) -> Copier:
    """Return what makes copies, once this node has seen all that was acknowledged anywhere before this request."""
    services = call.services
    if services.copier is None:
        raise NotReadyError("this node makes no copies of its log")
    if services.cluster is not None:
        index = await services.cluster.read_index()
        await services.applied.wait_applied(index, services.wait_s)
        call.read_index = services.reads.applied_index
    return services.copier
