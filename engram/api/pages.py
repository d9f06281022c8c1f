"""The node's own pages: is it alive, is it ready, what does it count, how is it spoken to."""

from importlib import resources

from engram.api.calls import Call
from engram.api.errors import UnknownPathError, UnreadyError
from engram.api.replies import Reply, say
from engram.api.schemas import DependencyView, Health, Ready

_ASSETS = {
    "": ("index.html", "text/html; charset=utf-8"),
    "engram.js": ("engram.js", "text/javascript; charset=utf-8"),
    "swagger-ui.css": ("swagger-ui.css", "text/css; charset=utf-8"),
    "swagger-ui-bundle.js": ("swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
}
_POLICY = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'",
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
}
"""The page loads nothing from another host, and the browser holds it to that."""

_FOLDER = resources.files("engram.api").joinpath("static")
_PAGES = {
    name: Reply(_FOLDER.joinpath(file_name).read_bytes(), content_type, headers=_POLICY)
    for name, (file_name, content_type) in _ASSETS.items()
}
"""Read once, at import: no request waits for the disk."""

ASSET_NAMES = tuple(name for name in _ASSETS if name)


async def health(_call: Call) -> Reply:
    """Say that the process is alive, nothing else."""
    return say(Health())


async def ready(call: Call) -> Reply:
    """Say what the node stands on; a problem when it cannot do without something that is away."""
    dependencies = [
        DependencyView(name=each.name, ready=each.ready, required=each.required, detail=each.detail)
        for each in await call.services.readiness()
    ]
    if any(each.required and not each.ready for each in dependencies):
        raise UnreadyError(dependencies)
    return say(Ready(status="ready", dependencies=dependencies))


async def metrics(call: Call) -> Reply:
    """Return every metric for Prometheus, in OpenMetrics when that is asked for."""
    shown = await call.services.metrics.scrape(call.request.headers.get("Accept", ""))
    return Reply(shown.body, shown.content_type)


async def swagger_page(_call: Call) -> Reply:
    """Return the page that shows this API, made for people."""
    return _PAGES[""]


async def swagger_asset(call: Call) -> Reply:
    """Return a file that the page needs."""
    [name] = call.segments
    if name not in ASSET_NAMES:
        raise UnknownPathError("no route has this path")
    return _PAGES[name]
