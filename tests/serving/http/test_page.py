"""The page as files over HTTP, and `POST /explain`."""

import asyncio
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the server needs the extra serving")

import httpx

from dynamic_tinybert import QuestionAnswerer
from dynamic_tinybert.runtime.tasks.question_answering.explain import explain
from dynamic_tinybert.serving.http.page.explain import MOST_CHARACTERS

from support.held_model import DOCUMENT, TEXT
from support.http_app import asked_app

PAGE = files("dynamic_tinybert.serving.http.page") / "static"
FILES = {file.name: file.read_text() for file in PAGE.iterdir()}
PATHS = {name: "/" if name == "index.html" else f"/{name}" for name in FILES}
QUESTION = "who met charles?"
VOID = {"meta", "link", "input"}


class Page(HTMLParser):
    """The tags of a page, which must be closed in order, and the attributes of each."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, self.getpos()

    def values(self, attribute: str) -> list[str]:
        return [value for _, attributes in self.tags if (value := attributes.get(attribute)) is not None]


class Client:
    """Asks an application, one request after the other."""

    def __init__(self, client: httpx.AsyncClient, runner: asyncio.Runner) -> None:
        self._client = client
        self._runner = runner

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:  # noqa: ANN401 - those of httpx
        return self._runner.run(self._client.request(method, path, **options))


@pytest.fixture
def client(served_bundle: Path, no_worker_stays: None) -> Iterator[Client]:
    with asyncio.Runner() as runner:
        app = asked_app(served_bundle)
        yield Client(runner.run(app.__aenter__()).client, runner)
        runner.run(app.__aexit__(None, None, None))


def post(client: Client, **body: object) -> tuple[int, dict[str, Any]]:
    response = client.ask("POST", "/explain", json=body)
    return response.status_code, response.json()


@pytest.mark.parametrize("name", FILES)
def test_files_are_served_as_they_are_and_only_again_if_they_change(client: Client, name: str) -> None:
    response = client.ask("GET", PATHS[name])
    assert (response.status_code, response.text) == (200, FILES[name])
    kinds = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    assert response.headers["content-type"].split(";")[0] == kinds[name.split(".")[1]]
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-content-type-options"] == "nosniff"
    etag = response.headers["etag"]
    for known in (etag, f'"other", W/{etag}'):
        again = client.ask("GET", PATHS[name], headers={"if-none-match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert client.ask("GET", PATHS[name], headers={"if-none-match": '"other"'}).status_code == 200
    head = client.ask("HEAD", PATHS[name])
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(FILES[name].encode())))
    assert client.ask("POST", PATHS[name]).status_code == 405


def test_the_policy_allows_own_files_and_nothing_else(client: Client) -> None:
    policy = client.ask("GET", "/").headers["content-security-policy"]
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert directives["default-src"] == directives["frame-ancestors"] == "'none'"
    assert {directives[name] for name in ("script-src", "style-src", "img-src", "connect-src")} == {"'self'"}
    assert "unsafe" not in policy


def test_files_name_nothing_outside() -> None:
    namespace = "http://www.w3.org/2000/svg"  # names the format, and is not loaded
    for name, text in FILES.items():
        assert re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"']*", text.replace(namespace, "")) == [], name
        assert not re.search(r"@import|url\(|eval\(|innerHTML|document\.write", text), name


def test_the_page_is_well_formed_and_loads_only_what_is_served() -> None:
    page = Page(FILES["index.html"])
    assert page.open == []
    loaded = {*page.values("src"), *(a["href"] for tag, a in page.tags if tag == "link")}
    imported = {name for text in FILES.values() for name in re.findall(r'from "\./([\w.]+)"', text)}
    assert loaded | imported == FILES.keys() - {"index.html"}
    assert not any(name.startswith("on") or name == "style" for _, attributes in page.tags for name in attributes)


def test_controls_have_labels_and_scripts_find_what_they_name() -> None:
    page = Page(FILES["index.html"])
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    references = [*page.values("for"), *page.values("aria-labelledby")]
    named = re.findall(r'byId\("([\w-]+)"\)', FILES["page.js"] + FILES["view.js"])
    assert len(named) > 20
    assert {*references, *named} <= set(ids)
    for tag, attributes in page.tags:
        if tag in ("input", "select", "textarea") and attributes.get("type") != "radio":
            assert attributes.get("id") in page.values("for") or attributes.get("aria-label"), attributes


@pytest.mark.parametrize("name", ["full", "half"])
@pytest.mark.parametrize("context", [TEXT, DOCUMENT[:2000], "Ada 🙂 met Charles, é ß 日本 met Ada."])
def test_explain_gives_what_the_runtime_gives(
    client: Client, served: QuestionAnswerer, name: str, context: str
) -> None:
    status, found = post(client, question=QUESTION, context=context, length_config=name)
    assert status == 200
    ms = found.pop("ms")
    assert 0 < ms < 60_000
    assert found.pop("budget_met") is None
    expected = explain(served.model, QUESTION, context, length_config=name).to_dict()
    assert found == json.loads(json.dumps(expected))


def test_the_description_tells_every_key(client: Client) -> None:
    description = client.ask("GET", "/openapi.json").json()
    assert "/" in description["paths"]
    operation = description["paths"]["/explain"]["post"]
    request = operation["requestBody"]["content"]["application/json"]
    assert request["example"].keys() <= request["schema"]["properties"].keys()
    status, found = post(client, **request["example"])
    assert status == 200
    result = operation["responses"]["200"]["content"]["application/json"]["schema"]["properties"]
    window = result["windows"]["items"]["properties"]
    assert found.keys() == result.keys()
    assert found["answer"].keys() == result["answer"]["properties"].keys()
    assert found["windows"][0].keys() == window.keys()
    for kind in ("tokens", "words"):
        assert found["windows"][0][kind][0].keys() == window[kind]["items"]["properties"].keys()


def test_the_page_can_read_the_time_of_an_answer(client: Client) -> None:
    (pattern,) = re.findall(r"/(\S+)/\.exec\(response\.headers\.get\(\"Server-Timing\"\)\)", FILES["server.js"])
    response = client.ask("POST", "/predict", json={"inputs": {"question": QUESTION, "context": TEXT}})
    (ms,) = re.findall(pattern, response.headers["server-timing"])
    assert 0 < float(ms) < 60_000


@pytest.mark.parametrize("given", [{}, {"length_config": None, "budget_ms": None}])
def test_without_a_choice_the_default_runs(client: Client, given: dict[str, None]) -> None:
    status, found = post(client, question=QUESTION, context=TEXT, **given)
    assert (status, found["length_config_name"], found["budget_met"]) == (200, "full", None)


@pytest.mark.parametrize(("budget_ms", "met"), [(60_000, True), (0.001, False)])
def test_a_budget_chooses_what_is_explained(client: Client, budget_ms: float, met: bool) -> None:
    status, found = post(client, question=QUESTION, context=DOCUMENT[:5000], budget_ms=budget_ms)
    assert (status, found["budget_met"]) == (200, met)
    assert (found["ms"] <= budget_ms) is met
    drops = found["macs_fewer"] > 1
    assert found["length_config_name"] == ("half" if drops else "full")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([], "must be an object"),
        ({"context": TEXT}, "the body has no question"),
        ({"question": QUESTION}, "the body has no context"),
        ({"question": QUESTION, "context": 3}, "context must be a text, not the number 3"),
        ({"question": None, "context": TEXT}, "question must be a text, not null"),
        ({"question": "", "context": TEXT}, "question"),
        ({"question": QUESTION, "context": " \n"}, "context"),
        ({"question": QUESTION, "context": TEXT, "top_k": 2}, "unknown parameter 'top_k'"),
        ({"question": QUESTION, "context": TEXT, "length_config": "fastest"}, "fastest"),
        ({"question": QUESTION, "context": TEXT, "length_config": [1, 1, 1]}, "length_config must be a text"),
        ({"question": QUESTION, "context": TEXT, "budget_ms": 0}, "budget_ms must be more than 0"),
        ({"question": QUESTION, "context": TEXT, "budget_ms": "5"}, "budget_ms"),
        ({"question": QUESTION, "context": TEXT, "budget_ms": 5, "length_config": "half"}, "give either"),
        ({"question": QUESTION, "context": TEXT, "max_f1_loss": -1}, "max_f1_loss must be at least 0"),
        ({"question": QUESTION, "context": TEXT, "max_f1_loss": 1}, "no f1_against_full"),
    ],
)
def test_bad_input_is_refused(client: Client, body: object, message: str) -> None:
    response = client.ask("POST", "/explain", json=body)
    error = response.json()
    assert response.status_code == 422, error
    assert message in error["error"]
    assert error.keys() == {"error", "error_type"}


def test_what_is_not_json_or_too_long_is_refused(client: Client) -> None:
    assert client.ask("POST", "/explain", content=b"{").status_code == 400
    assert client.ask("POST", "/explain", content=b'{"question": "\\ud800", "context": "x"}').status_code == 400
    assert client.ask("GET", "/explain").status_code == 405
    status, error = post(client, question=QUESTION, context="x" * (MOST_CHARACTERS + 1))
    assert status == 413
    assert str(MOST_CHARACTERS) in error["error"]


def test_a_request_ends_when_its_time_is_over(served_bundle: Path) -> None:
    async def ask() -> httpx.Response:
        async with asked_app(served_bundle, request_timeout_s=1e-5) as app:
            return await app.client.post("/explain", json={"question": QUESTION, "context": DOCUMENT})

    response = asyncio.run(ask())
    assert (response.status_code, response.json()["error_type"]) == (504, "deadline_exceeded")
