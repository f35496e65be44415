"""Print how many requests prometheus-fastapi-instrumentator has counted."""

from app.main import app
from entry_points.reads import send_reads
from fastapi.testclient import TestClient
from prometheus_fastapi_instrumentator import Instrumentator

# The service tells its own metrics at /metrics.
Instrumentator().instrument(app).expose(app, endpoint="/instrumented")
send_reads(app)
with TestClient(app) as client:
    lines = client.get("/instrumented").text.splitlines()
print([line for line in lines if line.startswith("http_requests_total{")])
