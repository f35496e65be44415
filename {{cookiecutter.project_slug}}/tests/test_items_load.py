"""The load test on the service: it fills a page, and sends reads and writes."""

import asyncio
from pathlib import Path

import httpx2
import pytest

from loadtest import __main__ as command
from loadtest import client as python_client
from loadtest.results import Service
from loadtest.service import Workload, service_at, workloads


async def test_a_full_page_is_made_and_its_ids_are_asked_for(client: httpx2.AsyncClient) -> None:
    hot, single, new = await asyncio.to_thread(workloads, str(client.base_url))
    listed = (await client.get("/items")).json()["items"]
    assert len(listed) == 100
    assert set(single.paths) == {f"/items/{item['id']}" for item in listed}
    assert (hot.paths, new.method) == (["/items"], "POST")
    await asyncio.to_thread(workloads, str(client.base_url))
    assert (await client.get("/items?limit=1000")).json()["items"] == listed


async def test_python_sends_reads_and_writes(client: httpx2.AsyncClient) -> None:
    ticks: list[float] = []
    for workload in await asyncio.to_thread(workloads, str(client.base_url)):
        found = await python_client.send(str(client.base_url), workload, connections=4, seconds=0.6, tick=ticks.append)
        assert found.errors == {}
        assert found.answers >= 4
        assert found.seconds >= 0.6
        assert len(found.timeline) >= 1
        assert 0 < found.percentiles["50"] <= found.percentiles["100"] < found.seconds
    assert ticks
    created = (await client.get("/items?limit=1000")).json()["items"]
    assert len(created) == min(1000, 100 + found.answers)


async def test_an_open_loop_sends_reads_and_writes(
    client: httpx2.AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "RESULTS", tmp_path)
    run, _ = await asyncio.to_thread(command.load, str(client.base_url), rate=40, connections=4, seconds=1)
    assert [measurement.schedule and measurement.schedule.due for measurement in run.measurements] == [40] * 3
    assert (run.errors, run.rate) == (0, 40)
    assert capsys.readouterr().out.count(" 0\N{NO-BREAK SPACE}% errors") == 3
    assert len((await client.get("/items?limit=1000")).json()["items"]) == 140


async def test_the_service_tells_who_it_is(client: httpx2.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()["info"]
    found = await asyncio.to_thread(service_at, str(client.base_url))
    assert found == Service(document["title"], document["version"], found.workers)
    assert f"highload_workers {found.workers}\n" in (await client.get("/metrics")).text


async def test_python_counts_errors_by_status(client: httpx2.AsyncClient) -> None:
    refused = Workload("", "", "POST", ["/items"], '{"name":""}')
    found = await python_client.send(str(client.base_url), refused, connections=2, seconds=0.3, tick=print)
    assert found.answers == 0
    assert found.errors.keys() == {"status 422"}


async def test_python_takes_the_place_of_missing_tools(
    client: httpx2.AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(command, "RESULTS", tmp_path)
    run, previous = await asyncio.to_thread(command.load, str(client.base_url), connections=2, seconds=1)
    assert [measurement.tool for measurement in run.measurements] == ["Python"] * 3
    assert (run.errors, previous) == (0, None)
    printed = capsys.readouterr()
    for tool in ("wrk", "hey"):
        assert f"{tool} is missing" in printed.err
        assert f"sudo apt install {tool}, or brew install {tool}." in printed.err
    assert printed.err.count("is missing") == 2
    assert printed.out.count("requests/s") == 3
