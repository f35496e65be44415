"""The proxy before replicas that count what they get, and the pooler: as images, without the service.

With the service behind them, both are in the drills of replicas (`tests/test_drills.py`).
"""

import gzip
import http.client
import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.conftest import PATIENCE
from tests.test_stack import eventually
from tests.variants import core_variants, render

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("docker")]

NEWEST, OLDER = "newest", "older"
FOLLOWS_DNS = (1, 27, 3)

# Where no registry can be reached: the nginx of Debian testing in the place of the official one.
NGINX = """
FROM nginx:1-alpine AS official
FROM python:3.14-slim
RUN apt-get update -qq && apt-get install -qq --yes --no-install-recommends nginx gettext-base busybox \\
    && ln -s /bin/busybox /usr/local/bin/wget && groupadd --gid 101 nginx && useradd --uid 101 --gid 101 nginx
COPY --from=official /docker-entrypoint.sh /
COPY --from=official /docker-entrypoint.d /docker-entrypoint.d
STOPSIGNAL SIGQUIT
ENTRYPOINT ["/docker-entrypoint.sh"]
"""

# A replica: it notes what it gets, and does what the path says.
REPLICA = r"""
import json, socketserver, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        got = {"method": self.command, "path": self.path, "port": self.client_address[1], **dict(self.headers)}
        if self.path != "/livez":
            print(json.dumps(got), flush=True)
        if "/hang-up" in self.path:
            self.close_connection = True
            return
        answer = json.dumps(got).encode() + b" " * (5000 if "/large" in self.path else 0)
        self.send_response(503 if "/full" in self.path else 200)
        for name, value in (("Content-Type", "application/json"), ("ETag", '"1"'), ("Content-Length", len(answer))):
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_HEAD = do_POST = do_PATCH = do_DELETE = do_PUT = answer
    log_message = lambda *_: None

ThreadingHTTPServer(("", 8000), Handler).serve_forever()
"""

# The address of a replica that is gone: nothing there answers a connection. A full queue of connections does as much.
SILENT_REPLICA = """
import contextlib, signal, socket

listener = socket.create_server(("", 8000), backlog=0)
waiting = []
with contextlib.suppress(TimeoutError):
    while True:
        waiting.append(socket.create_connection(("127.0.0.1", 8000), timeout=1))
print("silent", flush=True)
signal.pause()
"""


def docker(*arguments: str, text: str = "", check: bool = True) -> str:
    """Run Docker and return what it prints."""
    done = subprocess.run(
        ["docker", *arguments],
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=3 * PATIENCE,
    )
    assert not check or done.returncode == 0, done.stdout
    return done.stdout


def version_of(image: str) -> tuple[int, ...]:
    """Return the version of nginx in an image."""
    told = docker("run", "--rm", "--entrypoint", "nginx", image, "-v")
    return tuple(map(int, re.findall(r"nginx/(\d+)\.(\d+)\.(\d+)", told)[0]))


def use_the_newest_nginx(project: Path) -> None:
    """Build the proxy on an nginx that is as new as the official one of today, where that cannot be had."""
    dockerfile = project / "proxy/Dockerfile"
    image = re.findall(r"^FROM (\S+)", dockerfile.read_text(), re.MULTILINE)[0]
    if version_of(image) < FOLLOWS_DNS:
        docker("build", "--quiet", "--tag", "nginx-of-debian-testing", "-", text=NGINX)
        dockerfile.write_text(dockerfile.read_text().replace(f"FROM {image}", "FROM nginx-of-debian-testing"))


class Answer(NamedTuple):
    """An answer of the proxy."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Proxy:
    """A proxy before two replicas."""

    def __init__(self, image: str, settings: Mapping[str, str]) -> None:
        self._network = docker("network", "create", f"{image}-{os.getpid()}-{len(settings)}").strip()
        self.replicas = [self.start_replica() for _ in range(2)]
        self._ends = count()
        environment = {
            "NGINX_ENVSUBST_OUTPUT_DIR": "/tmp",  # noqa: S108 - in the container
            "PROXY_RATE": "1000000r/s",
            "PROXY_BURST": "1000",
            "MAX_BODY_BYTES": "1000",
            "ROOT_PATH": "/api",
            **settings,
        }
        variables = [word for name, value in environment.items() for word in ("--env", f"{name}={value}")]
        locked = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--user", "nginx"]  # noqa: S108 - as above
        command = ["nginx", "-c", "/tmp/nginx.conf", "-g", "daemon off;"]  # noqa: S108 - as above
        self._options = ["--network", self._network, *locked, *variables]
        self.image = image
        self.container = docker(
            *("run", "--detach", "--publish", "127.0.0.1::8000", *self._options, image, *command)
        ).strip()
        self._port = int(docker("port", self.container, "8000").rpartition(":")[2])
        eventually(lambda: self.ask("GET", "/").status == 200)

    def start_replica(self, program: str = REPLICA) -> str:
        """Start one, which is known under the same name as the others."""
        options = ["--detach", "--init", "--network", self._network, "--network-alias", "api"]
        return docker("run", *options, "python:3.13-slim", "python", "-c", program).strip()

    def check(self, mistake: tuple[str, str]) -> str:
        """Return what nginx says of a configuration with a mistake."""
        write = f"sed 's#{mistake[0]}#{mistake[1]}#' /tmp/nginx.conf > /tmp/wrong.conf"
        return docker("exec", self.container, "sh", "-c", f"{write}; nginx -t -c /tmp/wrong.conf", check=False)

    def ask(self, method: str, path: str, body: str = "", **headers: str) -> Answer:
        """Send a request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        try:
            fields = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body or None, fields)
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        except OSError:
            return Answer(0, {}, b"")
        finally:
            connection.close()

    def got(self, path: str) -> list[dict[str, str]]:
        """Return the requests for paths that begin so, of those that have reached the replicas."""
        end = f"/end/{next(self._ends)}"

        def logs_of_all() -> list[str] | None:
            self.ask("GET", end)
            logs = [docker("logs", replica) for replica in self.replicas]
            return logs if all(end in log for log in logs) else None

        lines = "".join(eventually(logs_of_all)).splitlines()
        requests = [json.loads(line) for line in lines if line.startswith("{")]
        return [request for request in requests if request["path"].startswith(path)]

    def log(self, path: str) -> dict[str, Any]:
        """Return the line of the access log for a path."""

        def find() -> dict[str, Any] | None:
            lines = [json.loads(line) for line in docker("logs", self.container).splitlines() if line.startswith("{")]
            return next((line for line in lines if line["path"] == path), None)

        line: dict[str, Any] = eventually(find)
        return line

    def remove(self) -> None:
        """Remove the containers and the network."""
        docker("rm", "--force", "--volumes", self.container, *self.replicas)
        docker("network", "rm", self._network)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = render(tmp_path_factory.mktemp("proxy"), project_slug="proxied", **core_variants()[0])
    # So a strict umask leaves what is checked out.
    subprocess.run(["chmod", "-R", "go=", "proxy", "pooler"], cwd=project, check=True)
    return project


@pytest.fixture(scope="module", params=[NEWEST, OLDER])
def image(request: pytest.FixtureRequest, project: Path) -> str:
    """The image of the proxy, on an nginx whose upstreams follow the DNS, and on one that came before that."""
    dockerfile = project / "proxy/Dockerfile"
    before = dockerfile.read_text()
    if request.param == NEWEST:
        use_the_newest_nginx(project)
    elif version_of(re.findall(r"^FROM (\S+)", before, re.MULTILINE)[0]) >= FOLLOWS_DNS:
        pytest.skip("the nginx that is here is not old")
    name = f"proxied-{request.param}"
    docker("build", "--quiet", "--tag", name, str(project / "proxy"))
    dockerfile.write_text(before)
    return name


@pytest.fixture(scope="module")
def proxy(image: str) -> Iterator[Proxy]:
    proxy = Proxy(image, {})
    try:
        yield proxy
    finally:
        proxy.remove()


@pytest.mark.parametrize(
    ("method", "headers", "most"),
    [
        ("GET", {}, 9),
        ("POST", {"Idempotency_Key": "1"}, 9),
        ("POST", {}, 1),
        ("PATCH", {}, 1),
        ("DELETE", {}, 1),
        ("PUT", {}, 1),
    ],
)
def test_only_what_may_be_repeated_is_sent_to_another_replica(
    proxy: Proxy, method: str, headers: dict[str, str], most: int
) -> None:
    path = f"/hang-up/{method}/{most}"
    refused = proxy.ask(method, path, "" if method in ("GET", "DELETE") else "{}", **headers)
    assert (refused.status, refused.headers["content-type"]) == (502, "application/problem+json")
    sent = len(proxy.got(path))
    assert 2 <= sent <= most if most > 1 else sent == 1


def test_a_refusal_takes_no_replica_out_and_is_not_repeated(proxy: Proxy) -> None:
    for number in range(20):
        assert proxy.ask("GET", f"/full/{number}").status == 503
    assert len(proxy.got("/full")) == 20
    for _ in range(20):
        assert proxy.ask("GET", "/after").status == 200
    ends = [sum("/after" in line for line in docker("logs", replica).splitlines()) for replica in proxy.replicas]
    assert min(ends) > 0


def test_metrics_are_closed(proxy: Proxy) -> None:
    for path in ("/metrics", "/metrics/", "//metrics", "/%6Detrics", "/./metrics?x", "/x/../metrics", "/api/metrics"):
        closed = proxy.ask("GET", path)
        assert (closed.status, closed.headers["content-type"]) == (404, "application/problem+json"), path
    assert not [request["path"] for request in proxy.got("") if "metrics" in request["path"]]
    assert proxy.ask("GET", "/metrics-of-yours").status == 200


def test_a_client_does_not_say_who_it_is(proxy: Proxy) -> None:
    proxy.ask("GET", "/who", X_Forwarded_For="1.2.3.4", X_Forwarded_Proto="https", X_Request_ID="mine", Host="a.b:81")
    (got,) = proxy.got("/who")
    assert got["Host"] == "a.b:81"
    assert got["X-Forwarded-Proto"] == "http"
    assert re.fullmatch(r"[\d.]+", got["X-Forwarded-For"])
    assert got["X-Forwarded-For"] != "1.2.3.4"
    assert re.fullmatch("[0-9a-f]{32}", got["X-Request-ID"])
    line = proxy.log("/who")
    assert (line["request_id"], line["client"]) == (got["X-Request-ID"], got["X-Forwarded-For"])
    assert "Traceparent" not in {name.title() for name in got}


def test_the_log_holds_nothing_that_clients_keep_to_themselves(proxy: Proxy) -> None:
    proxy.ask("POST", "/quiet?token=s3cret", '{"name":"s3cret"}', Authorization="Bearer s3cret")
    line = proxy.log("/quiet")
    assert (line["status"], line["method"], line["replica_status"]) == (200, "POST", "200")
    proxy.ask("POST", "/hang-up/quiet?token=s3cret", '{"name":"s3cret"}')
    assert proxy.log("/hang-up/quiet")["status"] == 502
    assert "s3cret" not in docker("logs", proxy.container)


def test_what_is_compressed_keeps_its_tag(proxy: Proxy) -> None:
    large = proxy.ask("GET", "/large", Accept_Encoding="gzip")
    assert (large.headers["content-encoding"], large.headers["vary"]) == ("gzip", "Accept-Encoding")
    assert json.loads(gzip.decompress(large.body))["path"] == "/large"
    assert large.headers["etag"] == 'W/"1"'
    assert proxy.ask("GET", "/large").headers["etag"] == '"1"'
    assert "content-encoding" not in proxy.ask("GET", "/small", Accept_Encoding="gzip").headers
    for sent, received in (('W/"1"', '"1"'), ('"1"', '"1"'), ("*", "*"), ('W/"1", W/"2"', 'W/"1", W/"2"')):
        got = json.loads(proxy.ask("PATCH", "/if-match", "{}", If_Match=sent).body)
        assert got["If-Match"] == received
    assert "If-Match" not in json.loads(proxy.ask("PATCH", "/if-match", "{}").body)


def test_a_body_has_the_bound_of_the_service(proxy: Proxy) -> None:
    assert proxy.ask("POST", "/bound", "x" * 1000).status == 200
    refused = proxy.ask("POST", "/bound", "x" * 1001)
    assert (refused.status, refused.headers["content-type"]) == (413, "application/problem+json")
    assert len(proxy.got("/bound")) == 1


def test_connections_to_replicas_are_kept(proxy: Proxy, image: str) -> None:
    if image.endswith(OLDER):
        pytest.skip("this nginx makes one for each request")
    workers = len(docker("exec", proxy.container, "sh", "-c", "cat /proc/[0-9]*/cmdline").split("worker process"))
    for _ in range(100):
        assert proxy.ask("GET", "/kept").status == 200
    assert len({request["port"] for request in proxy.got("/kept")}) <= 2 * workers


def test_replicas_that_come_and_go_are_followed(proxy: Proxy) -> None:
    new = proxy.start_replica()

    def takes_part() -> bool:
        assert proxy.ask("GET", "/new").status == 200
        return "/new" in docker("logs", new)

    eventually(takes_part)
    docker("rm", "--force", new)
    for _ in range(200):
        assert proxy.ask("GET", "/gone").status == 200


def test_a_read_outlasts_more_dead_addresses_than_one_round_of_tries(proxy: Proxy, image: str) -> None:
    if image.endswith(OLDER):
        pytest.skip("this nginx takes the addresses in any order")
    silent = [proxy.start_replica(SILENT_REPLICA) for _ in range(5)]
    paths = (f"/silent/{number}" for number in count())

    def meets_a_silent_one() -> bool:
        path = next(paths)
        proxy.ask("GET", path)
        return "," in proxy.log(path)["replica"]

    try:
        eventually(lambda: all("silent" in docker("logs", replica) for replica in silent))
        eventually(meets_a_silent_one)
        assert [proxy.ask("GET", next(paths)).status for _ in range(7)] == [200] * 7
    finally:
        docker("rm", "--force", *silent)


def test_nginx_refuses_mistakes(proxy: Proxy) -> None:
    assert "test is successful" in proxy.check(("nothing", "nothing"))
    for mistake, sentence in {
        ("limit_req_status 429", "limit_req_status 200"): "value must be between 400 and 599",
        ("zone=clients burst", "zone=client burst"): "zero size shared memory zone",
        ("non_idempotent", "idempotent"): "invalid value",
        ("error timeout;", "error timeouts;"): "invalid value",
        ("max_body_size 1000", "max_body_size many"): "invalid value",
        ("resolver 127.0.0.11", "resolver_ 127.0.0.11"): "unknown directive",
    }.items():
        assert sentence in proxy.check(mistake), mistake


def test_a_limit_answers_429(image: str) -> None:
    limited = Proxy(image, {"PROXY_RATE": "1r/m", "PROXY_BURST": "5"})
    try:
        answers = [limited.ask("GET", "/limited") for _ in range(10)]
        refused = [answer for answer in answers if answer.status == 429]
        assert len(refused) >= 4
        assert refused[0].headers["retry-after"] == "1"
        assert json.loads(refused[0].body)["title"] == "Too Many Requests"
        assert refused[0].headers["x-request-id"]
        eventually(lambda: sum(docker("logs", one).count("/limited") for one in limited.replicas) == 10 - len(refused))
    finally:
        limited.remove()


def test_the_pooler_refuses_more_connections_than_the_database_has(project: Path) -> None:
    docker("build", "--quiet", "--tag", "proxied-pooler", str(project / "pooler"))
    sizes = {
        "DB_MAX_CONNECTIONS": 500,
        "DB_RESERVED_CONNECTIONS": 10,
        "PGBOUNCER_POOL_SIZE": 95,
        "POSTGRES_MAX_CONNECTIONS": 100,
    }
    variables = [word for name, value in sizes.items() for word in ("--env", f"{name}={value}")]
    assert docker("run", "--rm", *variables, "proxied-pooler", check=False) == (
        "PgBouncer does not start: PGBOUNCER_POOL_SIZE 95 + 10 in reserve = 105 database connections, but "
        "POSTGRES_MAX_CONNECTIONS is 100: lower the former, or raise the latter.\n"
    )
