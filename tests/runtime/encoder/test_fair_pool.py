"""Who waits for a thing gets it in turn, whatever the others do and wherever a signal handler raises."""

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import numpy as np
import openvino as ov
import pytest
from openvino import opset13

from dynamic_tinybert.runtime.encoder import extension_library, fair_pool
from dynamic_tinybert.runtime.encoder.compiled import CompiledGraph
from dynamic_tinybert.runtime.encoder.fair_pool import FairPool

SECONDS = 20
"""What hangs ends then."""


class InterruptedHereError(Exception):
    """What the signal handler of these tests raises."""


@contextmanager
def raising(signum: int) -> Iterator[None]:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise InterruptedHereError

    before = signal.signal(signum, interrupt)
    try:
        yield
    finally:
        signal.signal(signum, before)


def started(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.001)


def has_all(pool: FairPool[int], count: int) -> bool:
    """Whether a pool that nobody uses has all its things, and no queue."""
    return sorted(pool._idle) == list(range(count)) and not pool._waiting


@contextmanager
def held(pool: FairPool[int]) -> Iterator[None]:
    """Let another thread use a thing meanwhile."""
    taken, release = threading.Event(), threading.Event()

    def hold(thing: int) -> None:
        taken.set()
        release.wait(SECONDS)

    holder = started(lambda: pool.use(hold))
    assert taken.wait(SECONDS)
    try:
        yield
    finally:
        release.set()
        holder.join(SECONDS)


def waiting_in_order(pool: FairPool[int], names: str, served: list[str]) -> list[threading.Thread]:
    """A thread for each name, in this order; each notes its name when it is its turn."""
    threads = []
    for name in names:
        queued = len(pool._waiting)
        threads.append(started(lambda name=name: pool.use(lambda _: served.append(name))))  # type: ignore[misc]
        until(lambda queued=queued: len(pool._waiting) == queued + 1)  # type: ignore[misc]
    return threads


def test_threads_are_served_in_the_order_in_which_they_came() -> None:
    pool, served = FairPool([0]), list[str]()
    with held(pool):
        threads = waiting_in_order(pool, "abcdefgh", served)
    for thread in threads:
        thread.join(SECONDS)
    assert served == list("abcdefgh")
    assert has_all(pool, 1)


def test_the_thing_used_last_is_lent_first() -> None:
    pool = FairPool([0, 1, 2])
    order = list[int]()
    pool.use(lambda outer: pool.use(lambda inner: order.extend((inner, outer))))  # the outer one comes back last
    assert pool.use(lambda thing: thing) == order[1]
    assert pool.use(lambda first: pool.use(lambda second: (first, second))) == (order[1], order[0])


def test_what_is_used_comes_back_after_an_error() -> None:
    pool = FairPool([0])
    with pytest.raises(ZeroDivisionError):
        pool.use(lambda thing: 1 // thing)
    assert has_all(pool, 1)


def one_request() -> CompiledGraph:
    x = opset13.parameter([-1], np.float32, name="x")
    x.output(0).get_tensor().set_names({"x"})
    doubled = opset13.add(x, x)
    doubled.output(0).get_tensor().set_names({"y"})
    model = ov.Model([doubled.output(0)], [x])
    return CompiledGraph(lambda: extension_library.core().compile_model(model, "CPU", {"NUM_STREAMS": 1}))


def test_a_greedy_caller_starves_nobody() -> None:
    graph = one_request()
    turns, stop = Counter[str](), threading.Event()
    passed_over: list[int] = []  # greedy calls during each polite one
    array = np.ones(100_000, np.float32)

    def infer(name: str) -> None:
        assert graph.infer({"x": array})["y"][0] == 2
        turns[name] += 1

    def be_greedy() -> None:
        while not stop.is_set():
            infer("greedy")

    def be_polite(name: str) -> None:
        for _ in range(30):
            before = turns["greedy"]
            infer(name)
            passed_over.append(turns["greedy"] - before)
            time.sleep(0.001)

    greedy = started(be_greedy)
    polite = [started(lambda name=name: be_polite(name)) for name in ("a", "b")]  # type: ignore[misc]
    for thread in polite:
        thread.join(SECONDS)
        assert not thread.is_alive()
    stop.set()
    greedy.join(SECONDS)
    assert turns["a"] == turns["b"] == 30
    # The call that is running and the one that queued before; and calls before and after the wait itself, as counted.
    assert np.median(passed_over) <= 3


def test_a_waiter_that_is_interrupted_leaves_the_queue() -> None:
    pool, served, threads = FairPool([0]), list[str](), list[threading.Thread]()
    main = threading.get_ident()

    def interrupt() -> None:
        until(lambda: len(pool._waiting) == 1)
        threads.extend(waiting_in_order(pool, "ab", served))
        signal.pthread_kill(main, signal.SIGUSR1)

    with held(pool):
        helper = started(interrupt)
        with raising(signal.SIGUSR1), pytest.raises(InterruptedHereError):
            pool.use(lambda _: served.append("main"))
        helper.join(SECONDS)
        assert len(pool._waiting) == 2
    for thread in threads:
        thread.join(SECONDS)
    assert served == ["a", "b"]
    assert has_all(pool, 1)


def test_what_an_interrupted_waiter_was_given_goes_to_the_next() -> None:
    """The handler raises after another thread has handed over, and before the waiter returns with it."""
    pool, served, threads = FairPool([0]), list[str](), list[threading.Thread]()

    class Ready:
        """The lock of a turn, with a signal handler that raises once it is acquired."""

        def __init__(self) -> None:
            self._lock = threading.Lock()
            self._lock.acquire()

        def acquire(self) -> None:
            threads.extend(waiting_in_order(pool, "ab", served))
            release.set()
            self._lock.acquire()
            raise InterruptedHereError

        def release(self) -> None:
            self._lock.release()

    def be_interrupted() -> None:
        with pytest.raises(InterruptedHereError):
            pool.use(lambda _: served.append("interrupted"))

    release, taken = threading.Event(), threading.Event()

    def hold(thing: int) -> None:
        taken.set()
        release.wait(SECONDS)

    holder = started(lambda: pool.use(hold))
    assert taken.wait(SECONDS)
    with pytest.MonkeyPatch.context() as patch:
        made = fair_pool._Turn.__init__

        def init(turn: fair_pool._Turn[int], lent: list[int]) -> None:
            patch.undo()  # only the first to wait is interrupted
            made(turn, lent)
            turn.ready = Ready()  # type: ignore[assignment]

        patch.setattr(fair_pool._Turn, "__init__", init)
        started(be_interrupted).join(SECONDS)
    for thread in (holder, *threads):
        thread.join(SECONDS)
    assert served == ["a", "b"]
    assert has_all(pool, 1)


def test_a_waiter_that_is_interrupted_twice_leaves_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second signal arrives while the first one is handled; a thing lent to a thread that has gone would be lost."""
    pool = FairPool([0])
    leave = FairPool._give_up
    calls = list[object]()

    def interrupted_once(own: FairPool[int], turn: fair_pool._Turn[int]) -> None:
        calls.append(turn)
        if len(calls) == 1:
            raise InterruptedHereError
        leave(own, turn)

    monkeypatch.setattr(FairPool, "_give_up", interrupted_once)
    main = threading.get_ident()

    def interrupt() -> None:
        until(lambda: len(pool._waiting) == 1)
        signal.pthread_kill(main, signal.SIGUSR1)

    with held(pool):
        helper = started(interrupt)
        with raising(signal.SIGUSR1), pytest.raises(InterruptedHereError):
            pool.use(lambda thing: thing)
        helper.join(SECONDS)
        assert not pool._waiting
    assert len(calls) == 2
    assert has_all(pool, 1)


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_lost_wherever_a_signal_handler_raises(seed: int) -> None:
    generator = random.Random(seed)
    pool, stop = FairPool([0, 1]), threading.Event()

    def work() -> None:
        while not stop.is_set():
            pool.use(lambda _: time.sleep(generator.random() * 1e-4))

    threads = [started(work) for _ in range(3)]
    interrupted = 0
    with raising(signal.SIGALRM):
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-5 + generator.random() * 3e-4)
                while True:
                    pool.use(lambda thing: thing)
            except InterruptedHereError:
                interrupted += 1
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
    stop.set()
    for thread in threads:
        thread.join(SECONDS)
        assert not thread.is_alive()
    assert interrupted > 50
    assert has_all(pool, 2)


@pytest.mark.parametrize(("things", "threads"), [(1, 2), (1, 16), (2, 3), (3, 16), (8, 8)])
def test_each_thing_has_one_user_at_a_time(things: int, threads: int) -> None:
    pool, users, rounds = FairPool(range(things)), [0] * things, 60
    served, most = Counter[int](), Counter[int]()

    def work(index: int) -> None:
        generator = random.Random(index)

        def use(thing: int) -> None:
            users[thing] += 1
            most[thing] = max(most[thing], users[thing])
            if generator.random() < 0.5:
                time.sleep(generator.random() * 1e-4)
            users[thing] -= 1

        for _ in range(rounds):
            pool.use(use)
            served[index] += 1

    workers = [started(lambda index=index: work(index)) for index in range(threads)]  # type: ignore[misc]
    for worker in workers:
        worker.join(SECONDS)
        assert not worker.is_alive()
    assert set(most.values()) == {1}
    assert set(served.values()) == {rounds}
    assert has_all(pool, things)
