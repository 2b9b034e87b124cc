"""The page in a real browser, against a real server on loopback that answers with the bundle of the package."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the server needs the extra serving")

import httpx
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from dynamic_tinybert import AsyncQuestionAnswerer, QuestionAnswerer
from dynamic_tinybert.runtime.budget import Limits, f1_losses, is_allowed
from dynamic_tinybert.runtime.latency_table import LatencyTable
from dynamic_tinybert.runtime.tasks.question_answering import budgets
from dynamic_tinybert.runtime.tasks.question_answering.explain import explain
from dynamic_tinybert.runtime.tasks.question_answering.explanation import ExplainedWindow

from support.chromium import Chromium, chromium
from support.held_model import TEXT, held
from support.live_server import LiveServer, live_server

pytestmark = pytest.mark.slow

WIDTHS = (390, 1280)
PREDICTED_MS = {"full": 40.0, "accurate": 20.0, "balanced": 10.0, "fast": 5.0}
QUESTION, ANSWER = "When was the first lighthouse lit?", "14 November 1698"
LONG_QUESTION = "Who kept the log 🙂 of the harbour?"
LONG_TEXT = "\n\n".join(
    f"On day {day} the 🙂 harbour saw {day % 7} ships, naïve crews — and the usual fog; nobody wrote it down."
    + (" The log of the harbour was kept by Ada Lovelace." if day == 60 else "")
    for day in range(100)
)

PASTE = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))"
ANSWER_IS_SEEN = """
const mark = document.querySelector("#context-shown mark").getBoundingClientRect();
const box = document.getElementById("context-shown").getBoundingClientRect();
return box.top < mark.top && mark.bottom < box.bottom;
"""


@pytest.fixture(scope="module")
def real() -> QuestionAnswerer:
    """The bundle of the package, with times that do not depend on what else the machine does."""

    def table(*arguments: object, **options: object) -> LatencyTable:
        return LatencyTable({name: {(length, 1): ms for length in (32, 384)} for name, ms in PREDICTED_MS.items()})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(budgets, "measure_latency_table", table)
        patch.setenv("DYNAMIC_TINYBERT_CACHE", "off")
        answerer = QuestionAnswerer.from_pretrained()
        answerer.latency_table()
    answerer.model.warm_up()
    return answerer


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Chromium, real: QuestionAnswerer) -> Iterator[tuple[Chromium, LiveServer]]:
    with live_server(AsyncQuestionAnswerer(real)) as server:
        yield browser, server


def ask(browser: Chromium, question: str, context: str | None = None) -> None:
    """Ask, and wait for the answer and that of `full`."""
    if context is not None:
        browser.run(PASTE, browser.element("#context"), context)
    box = browser.element("#question")
    browser.run(PASTE, box, question)  # its driver cannot type all characters
    box.send_keys(Keys.ENTER)
    browser.until(lambda: browser.text("question-shown") == question and settled(browser))


def settled(browser: Chromium) -> bool:
    """Whether an answer is shown, and nothing is being asked."""
    busy = browser.run("return document.getElementById('result').getAttribute('aria-busy')")
    return busy == "false" and not browser.run("return document.getElementById('explained').hidden")


def is_answered(browser: Chromium) -> bool:
    """Ask, and say if there is an answer; a full queue may not have emptied yet."""
    browser.element("#send").click()
    busy = "return document.getElementById('result').getAttribute('aria-busy')"
    browser.until(lambda: browser.run(busy) == "false")
    return settled(browser) and browser.text("error") == ""


def budget(browser: Chromium, key: str, shown: str) -> None:
    """Move the budget to one of its ends by the keyboard, and wait for the answer within it."""
    browser.element("#budget").send_keys(key)
    browser.until(lambda: f"the budget of {shown}" in browser.text("ran").replace("\xa0", " ") and settled(browser))


def stretches(browser: Chromium, id_: str) -> list[dict[str, Any]]:
    """The stretches that a text is shown in."""
    return list(
        browser.run(
            "return [...document.getElementById(arguments[0]).children].map(one => ({text: one.textContent, layer: "
            "one.dataset.layer ?? null, gone: one.classList.contains('gone'), answer: one.tagName === 'MARK'}))",
            id_,
        )
    )


def struck(browser: Chromium, id_: str) -> list[str]:
    """By character of a text: the layer that dropped it ("Infinity": none) if it is in a word."""
    return [one["layer"] for one in stretches(browser, id_) for _ in one["text"]]


def expected_layers(text: str, windows: list[ExplainedWindow], segment: str) -> list[str | None]:
    """The same from an explanation; a word in several windows counts by the one that kept it longest."""
    layers = [-1.0] * len(text)
    for word in (word for window in windows for word in window.words if word.segment == segment):
        layer = float("inf") if word.dropped_at is None else word.dropped_at
        layers[word.start : word.end] = [max(layer, known) for known in layers[word.start : word.end]]
    return [None if layer < 0 else "Infinity" if layer == float("inf") else str(int(layer)) for layer in layers]


def assert_shown(browser: Chromium, id_: str, text: str, windows: list[ExplainedWindow], segment: str) -> None:
    shown = struck(browser, id_)
    expected = expected_layers(text, windows, segment)
    assert "".join(one["text"] for one in stretches(browser, id_)) == text
    assert [found for found, layer in zip(shown, expected, strict=True) if layer is not None] == [
        layer for layer in expected if layer is not None
    ]


def assert_fits(browser: Chromium) -> None:
    shown, wanted = browser.run("return [window.innerWidth, document.documentElement.scrollWidth]")
    assert wanted <= shown


@pytest.mark.parametrize("width", WIDTHS)
def test_a_person_asks_and_moves_the_budget(
    page: tuple[Chromium, LiveServer], real: QuestionAnswerer, width: int
) -> None:
    browser, server = page
    browser.requested(), browser.complaints()
    browser.show(f"{server.url}/", width=width)
    browser.until(lambda: settled(browser) and "John Smeaton" in browser.text("answer"))
    assert_fits(browser)

    ask(browser, QUESTION)
    assert browser.text("answer") == ANSWER
    (marked,) = [one for one in stretches(browser, "context-shown") if one["answer"]]
    assert marked == {"text": ANSWER, "layer": "Infinity", "gone": False, "answer": True}
    assert ANSWER in browser.text("spoken")
    assert_fits(browser)

    context = browser.run("return document.getElementById('context').value")
    struck_by = {}
    for key, shown, name in ((Keys.END, "2000 ms", "full"), (Keys.HOME, "1 ms", "fast")):
        budget(browser, key, shown)
        assert browser.run("return document.querySelector('#ran code').textContent") == name
        struck_by[name] = [one["text"] for one in stretches(browser, "context-shown") if one["gone"]]
        assert_fits(browser)
    assert struck_by["full"] == []
    assert struck_by["fast"]

    explained = explain(real.model, QUESTION, context, length_config="fast")
    assert_shown(browser, "context-shown", context, list(explained.windows), "context")
    assert_shown(browser, "question-shown", QUESTION, list(explained.windows), "question")
    assert f"{explained.macs_fewer:.1f}\N{MULTIPLICATION SIGN} fewer" in browser.text("savings")
    assert "full gives the same answer" in browser.text("full-answer")
    counts = browser.run("return [...document.querySelectorAll('.count')].map(one => Number(one.textContent))")
    assert counts == [len(explained.windows[0].tokens), *explained.windows[0].kept]
    assert_fits(browser)

    losses = f1_losses(real.model.length_configs)
    *_, fastest = (name for name, loss in losses.items() if is_allowed(loss, Limits(max_f1_loss=1)))
    assert fastest not in ("full", "fast")  # fast loses more
    Select(browser.element("#loss")).select_by_value("1")
    browser.until(lambda: settled(browser) and fastest in browser.text("ran"))

    requested = browser.requested()
    assert {f"{server.url}/", f"{server.url}/page.js", f"{server.url}/explain"} <= set(requested)
    assert [url for url in requested if not url.startswith(f"{server.url}/")] == []
    assert browser.complaints() == []


def test_layers_are_stepped_through_by_the_keyboard(page: tuple[Chromium, LiveServer], real: QuestionAnswerer) -> None:
    browser, server = page
    browser.show(f"{server.url}/", width=1280)
    browser.until(lambda: settled(browser))
    browser.run("document.querySelector('[name=by][value=name]').click()")
    browser.run("document.querySelector('[name=length_config][value=balanced]').click()")
    browser.until(lambda: settled(browser) and "balanced" in browser.text("ran"))

    gone = []
    for _ in range(6):
        gone.append(sum(one["gone"] for one in stretches(browser, "context-shown")))
        browser.element("#layers :checked").send_keys(Keys.ARROW_UP)
    assert browser.text("text-title") == "What the model reads"
    assert not any(one["gone"] for one in stretches(browser, "context-shown"))
    assert gone == sorted(gone, reverse=True)
    selecting = real.model.length_configs["balanced"].config.selecting_layers
    assert len(set(gone)) >= len(selecting) - 1 > 1  # the last of them drops words of the question alone

    browser.element("#play").click()
    browser.until(lambda: browser.text("text-title") == "What remains after layer 5")
    assert sum(one["gone"] for one in stretches(browser, "context-shown")) == gone[0]


@pytest.mark.parametrize("width", WIDTHS)
def test_a_long_text_is_shown_whole_and_by_window(
    page: tuple[Chromium, LiveServer], real: QuestionAnswerer, width: int
) -> None:
    browser, server = page
    browser.show(f"{server.url}/", width=width)
    browser.until(lambda: settled(browser))
    browser.run("document.querySelector('[name=by][value=name]').click()")
    browser.run("document.querySelector('[name=length_config][value=fast]').click()")
    ask(browser, LONG_QUESTION, LONG_TEXT)
    explained = explain(real.model, LONG_QUESTION, LONG_TEXT, length_config="fast")
    assert len(explained.windows) > 3
    assert "Ada Lovelace" in browser.text("answer") == explained.answer["answer"]
    assert_shown(browser, "context-shown", LONG_TEXT, list(explained.windows), "context")
    assert browser.run(ANSWER_IS_SEEN)
    assert_fits(browser)

    choice = Select(browser.element("#window"))
    assert len(choice.options) == 1 + len(explained.windows)
    choice.select_by_index(2)
    assert_shown(browser, "context-shown", LONG_TEXT, [explained.windows[1]], "context")
    assert_shown(browser, "question-shown", LONG_QUESTION, [explained.windows[1]], "question")
    assert_fits(browser)


def test_what_the_server_cannot_do_is_said_in_words(browser: Chromium, served: QuestionAnswerer) -> None:
    with held(served) as (slow, calls), live_server(AsyncQuestionAnswerer(slow, workers=1, max_queued=1)) as server:
        facts, server.backend.facts = server.backend.facts, None
        browser.show(f"{server.url}/", width=390)
        browser.until(lambda: "still loading" in browser.text("error"))
        server.backend.facts = facts
        calls.began.acquire(timeout=60)  # what the page asks first

        waiting = threading.Thread(
            target=httpx.post,
            args=(f"{server.url}/explain",),
            kwargs={"json": {"question": "who?", "context": TEXT}, "timeout": 60},
        )
        waiting.start()
        while server.backend.queued < 1:
            threading.Event().wait(0.01)
        browser.element("#send").click()
        browser.until(lambda: "The server is busy" in browser.text("error"))
        assert "Try again in" in browser.text("error")
        calls.open()
        waiting.join()

        browser.until(lambda: is_answered(browser))
        browser.run("document.getElementById('question').value = '  '")
        browser.element("#send").click()
        browser.until(lambda: "The server cannot use this input" in browser.text("error"))
    browser.element("#send").click()
    browser.until(lambda: "The server cannot be reached" in browser.text("error"))


CONTRASTS = """
const pixel = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
function seen(colours) {  // painted one over the other
  for (const colour of colours) { pixel.fillStyle = colour; pixel.fillRect(0, 0, 1, 1); }
  return [...pixel.getImageData(0, 0, 1, 1).data].slice(0, 3).map(v => v / 255)
    .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
}
const luminance = ([r, g, b]) => .2126 * r + .7152 * g + .0722 * b;
const paper = getComputedStyle(document.body).backgroundColor;
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const found = [];
while (texts.nextNode()) {
  const element = texts.currentNode.parentElement;
  if (!texts.currentNode.data.trim() || !element.checkVisibility() || element.closest("noscript")) continue;
  const behind = [];
  for (let one = element; one; one = one.parentElement) behind.unshift(getComputedStyle(one).backgroundColor);
  const back = luminance(seen([paper, ...behind]));
  const front = luminance(seen([paper, ...behind, getComputedStyle(element).color]));
  found.push([(Math.max(front, back) + .05) / (Math.min(front, back) + .05), element.outerHTML.slice(0, 90)]);
}
return found;
"""


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_can_be_read(page: tuple[Chromium, LiveServer], dark: bool) -> None:
    browser, server = page
    browser.show(f"{server.url}/", width=1280, dark=dark)
    browser.until(lambda: settled(browser))
    browser.run("document.querySelector('[name=by][value=name]').click()")
    browser.run("document.querySelector('[name=length_config][value=balanced]').click()")
    browser.until(lambda: settled(browser) and "balanced" in browser.text("ran"))
    browser.until(lambda: not browser.run("return document.getAnimations().length"))
    contrasts = browser.run(CONTRASTS)
    assert len(contrasts) > 60
    assert [(ratio, text) for ratio, text in contrasts if ratio < 4.5] == []  # WCAG 2.2, level AA
