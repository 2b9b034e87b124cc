"""Messages arrive whole, however the bytes are cut; anything else is refused."""

import asyncio
import os
import pickle
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamic_tinybert.runtime.common.errors import OverloadedError, WorkerLostError
from dynamic_tinybert.runtime.tasks.question_answering.plan import Answered
from dynamic_tinybert.serving.jobs import AnswerJob, ClassifyJob, Logits, LogitsJob, RankJob
from dynamic_tinybert.serving.usage import Computed
from dynamic_tinybert.serving.workers.channel import Channel, open_channel
from dynamic_tinybert.serving.workers.messages import (
    Cancel,
    Decoder,
    Done,
    Failed,
    Message,
    Ping,
    Pong,
    Run,
    encode,
)

numbers = st.integers(0, 2**70)
texts = st.text(st.characters(codec="utf-8"), min_size=1)
messages = st.one_of(
    st.builds(Run, numbers, st.builds(lambda q, c: AnswerJob((q,), (c,), {"top_k": 2}), texts, texts), st.none()),
    st.builds(Run, numbers, st.builds(lambda q, d: RankJob(q, (d,), True, {"top_n": 2}), texts, texts), st.none()),
    st.builds(Run, numbers, st.builds(lambda a, b: ClassifyJob(((a,), (a, b))), texts, texts), st.none()),
    st.builds(Cancel, numbers),
    st.builds(Done, numbers, st.builds(Computed, st.just([]), texts | st.none(), numbers, st.tuples(numbers))),
    st.builds(Done, numbers, st.dictionaries(texts, numbers)),
    st.builds(Done, numbers, st.builds(Answered, st.just([[]]), texts | st.none(), numbers, st.tuples(numbers))),
    st.builds(Ping),
    st.builds(Pong, numbers),
)


@given(st.lists(messages, max_size=6), st.data())
@settings(deadline=None)
def test_messages_arrive_whole_however_they_are_cut(sent: Sequence[Message], data: st.DataObject) -> None:
    stream = b"".join(map(encode, sent))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    decoder = Decoder()
    received: list[Message] = []
    for first, last in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        received += decoder.feed(stream[first:last])
    assert received == sent
    assert list(map(type, received)) == list(map(type, sent))


def test_a_message_that_comes_byte_by_byte() -> None:
    decoder = Decoder()
    *before, last = (list(decoder.feed(bytes([byte]))) for byte in encode(Pong(3)))
    assert (before, last) == ([[]] * len(before), [Pong(3)])


def test_arrays_and_errors_arrive_as_they_were() -> None:
    ids = np.arange(12).reshape(3, 4)[:, ::2]
    logits = Logits({"logits": ids.astype(np.float32)}, "half", 6, (6, 3))
    error = OverloadedError("too many", retry_after_s=0.5)
    run, done, failed = Decoder().feed(
        encode(Run(1, LogitsJob(ids), 2.5)) + encode(Done(1, logits)) + encode(Failed(2, error))
    )
    assert isinstance(run, Run)
    assert isinstance(run.job, LogitsJob)
    np.testing.assert_array_equal(run.job.input_ids, ids)
    assert isinstance(done, Done)
    np.testing.assert_array_equal(done.result.outputs["logits"], logits.outputs["logits"])
    assert done.result.outputs["logits"].dtype == np.float32
    assert isinstance(failed, Failed)
    assert (type(failed.error), str(failed.error)) == (OverloadedError, "too many")
    assert failed.error.retry_after_s == 0.5  # type: ignore[attr-defined]


@given(st.binary(min_size=8), st.lists(messages, max_size=2))
@settings(deadline=None)
def test_garbage_is_refused_after_what_came_before(garbage: bytes, before: Sequence[Message]) -> None:
    decoder = Decoder()
    assert list(decoder.feed(b"".join(map(encode, before)))) == before
    if garbage[:4] != b"dtb1":
        with pytest.raises(WorkerLostError, match="begins with"):
            list(decoder.feed(garbage))


@pytest.mark.parametrize("body", [b"", b"\x80\x05.", b"no pickle", pickle.dumps("a text"), pickle.dumps(Ping())[:-3]])
def test_a_body_that_is_no_message_is_refused(body: bytes) -> None:
    with pytest.raises(WorkerLostError, match="a message between processes"):
        list(Decoder().feed(struct.pack("<4sI", b"dtb1", len(body)) + body))


@pytest.mark.usefixtures("nothing_stays")
@pytest.mark.parametrize("end", [b"garbage, garbage", b"dtb1\x09\0\0\0no pickle", encode(Ping())[:-1], b""])
def test_a_channel_is_lost_at_garbage_and_at_the_end(end: bytes) -> None:
    async def talk() -> None:
        ours, theirs = socket.socketpair()
        received: list[Message] = []
        lost = asyncio.Event()
        channel: Channel = await open_channel(ours, received.append, lost.set)
        with theirs:
            theirs.sendall(encode(Pong(1)) + end)
            theirs.shutdown(socket.SHUT_WR)
            await asyncio.wait_for(lost.wait(), 60)
            assert received == [Pong(1)]
            channel.send(encode(Ping()))  # nothing happens
            channel.close()

    asyncio.run(talk())


@pytest.mark.usefixtures("nothing_stays")
@pytest.mark.parametrize("sent", [b"garbage, garbage", b""])
def test_a_worker_that_gets_garbage_ends(sent: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            fd = theirs.fileno()
            command = [sys.executable, "-m", "dynamic_tinybert.serving.workers.main", str(fd), str(os.getpid())]
            worker = subprocess.Popen(command, pass_fds=[fd], stderr=subprocess.DEVNULL)
        ours.sendall(sent)
        ours.shutdown(socket.SHUT_WR)
        worker.wait(60)


def test_a_worker_whose_parent_is_another_process_ends() -> None:
    command = [sys.executable, "-m", "dynamic_tinybert.serving.workers.main", "0", "1"]
    assert subprocess.run(command, timeout=60, check=False).returncode == 0
