"""The routes that copy the log."""

from collections.abc import Sequence

from engram.api import backups
from engram.api.parameters import Identifier, Integer, Parameter
from engram.api.route import Route
from engram.api.schemas import INDEX_MAX


def copy_routes(*, problems: Sequence[str]) -> Sequence[Route]:
    """Return the routes; `problems` are those that every read has."""
    return (
        Route(
            method="GET",
            path="/backup",
            handler=backups.get_backup,
            name="get_backup",
            tag="service",
            answer_type=backups.BACKUP_TYPE,
            problems=["overloaded", *problems],
        ),
        Route(
            method="GET",
            path="/export",
            handler=backups.get_export,
            name="get_export",
            tag="service",
            answer_type=backups.EXPORT_TYPE,
            parameters=[
                Parameter("after", Integer(0, INDEX_MAX - 1), "Events behind this log index.", default=0),
                Parameter("session_id", Identifier(), "Only events of this session."),
            ],
            problems=["overloaded", *problems],
        ),
    )
