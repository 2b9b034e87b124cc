"""What clients of the Open Inference Protocol hear from a server that starts, or that is being closed."""

import asyncio
from pathlib import Path

import pytest

from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.serving.settings import ServerSettings

from support.http_app import CONTEXT, QUESTION, AskedApp, asked_app

pytestmark = pytest.mark.usefixtures("no_worker_stays")

MODEL = "/v2/models/tiny"
REQUEST = {
    "inputs": [
        {"name": name, "shape": [1], "datatype": "BYTES", "data": [text]}
        for name, text in (("question", QUESTION), ("context", CONTEXT))
    ]
}


async def statuses(app: AskedApp) -> dict[str, tuple[int, str | None]]:
    """Status and error_type of each endpoint."""
    paths = ("/v2", "/v2/health/live", "/v2/health/ready", MODEL, MODEL + "-tokens/ready", MODEL + "/infer")
    found = {}
    for path in paths:
        infer = path.endswith("/infer")
        response = await (app.client.post(path, json=REQUEST) if infer else app.client.get(path))
        found[path.removeprefix("/v2")] = (response.status_code, response.json().get("error_type"))
    return found


def test_while_it_serves(served_bundle: Path) -> None:
    async def ask() -> None:
        async with asked_app(served_bundle) as app:
            assert set((await statuses(app)).values()) == {(200, None)}

    asyncio.run(ask())


def test_while_it_starts(served_bundle: Path) -> None:
    async def ask() -> None:
        async with asked_app(served_bundle) as app:
            app.backend.facts = None
            found = await statuses(app)
            assert found["/models/tiny"] == found["/models/tiny/infer"] == (503, "starting")
            assert found["/models/tiny-tokens/ready"] == (503, "starting")
            assert found[""] == found["/health/live"] == (200, None)

    asyncio.run(ask())


def test_while_it_is_being_closed(served_bundle: Path) -> None:
    async def ask() -> None:
        async with asked_app(served_bundle) as app:
            await app.backend.aclose()
            assert await statuses(app) == {
                "": (200, None),
                "/health/live": (200, None),
                "/health/ready": (503, "draining"),
                "/models/tiny": (200, None),
                "/models/tiny-tokens/ready": (503, "draining"),
                "/models/tiny/infer": (503, "draining"),
            }

    asyncio.run(ask())


def test_a_request_is_counted_with_its_route(served_bundle: Path) -> None:
    async def ask() -> str:
        async with asked_app(served_bundle) as app:
            await app.client.post(MODEL + "/infer", json=REQUEST)
            await app.client.post("/v2/models/other/infer", json=REQUEST)
            return (await app.client.get("/metrics")).text

    metrics = asyncio.run(ask())
    requests = 'dynamic_tinybert_requests_total{method="POST",route="/v2/models/{name}/infer",status="%d"} 1.0'
    assert requests % 200 in metrics
    assert requests % 404 in metrics
    assert 'dynamic_tinybert_failures_total{error_type="not_found"} 1.0' in metrics
    assert 'dynamic_tinybert_jobs_total{length_config="full"} 1.0' in metrics


@pytest.mark.parametrize("name", ["a/b", "a b", "{name}", "ä", "a\n"])
def test_names_of_models_fit_into_paths(name: str) -> None:
    with pytest.raises(InvalidInputError, match="model_name must be letters, digits"):
        ServerSettings(model_name=name)
