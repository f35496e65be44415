"""GET /metrics: what all processes of the service have counted, for Prometheus."""

from fastapi import APIRouter, Response

from app.highload.http.problems import problem
from app.highload.metrics.exposition import CONTENT_TYPE, PATH, exposition
from app.highload.metrics.slots import LayoutDiffers

METRICS = PATH

router = APIRouter()


@router.get(METRICS, include_in_schema=False)
async def metrics() -> Response:
    """Tell the numbers; they are for operators, so close the path at the proxy."""
    try:
        return Response(exposition(), headers={"Cache-Control": "no-store"}, media_type=CONTENT_TYPE)
    except LayoutDiffers:
        reason = "This process is of another release than its siblings, and counts something else: reload the service."
        return problem(503, reason)
