from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from dynamic_tinybert.runtime.tasks.question_answering.inference import run_windows
from dynamic_tinybert.runtime.tasks.windows import WindowTokenizer

from support.tiny import letter_tokenizer, tiny_bert
from support.torch_model import TorchModel, transformers_tokenizer

CONTEXTS = ["abc def " * 4, "one two three " * 20, "z", "a b c d e f g " * 9, "q" * 30]


def kept(mask: npt.NDArray[np.int64]) -> dict[int, npt.NDArray[np.int32]]:
    """Layer 1 keeps the first third of each row's real tokens."""
    length = mask.shape[1]
    positions = np.tile(np.arange(length, dtype=np.int32), (len(mask), 1))
    positions[positions >= mask.sum(1, keepdims=True) // 3] = length
    return {1: positions}


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_outputs_do_not_depend_on_batching(tmp_path: Path, batch_size: int) -> None:
    file = letter_tokenizer(tmp_path)
    bert = tiny_bert()
    model = TorchModel(bert, file, kept)
    tokenize = WindowTokenizer(file)
    questions = [tokenize("who?", context, max_seq_len=48, doc_stride=16) for context in CONTEXTS]
    outputs = run_windows(model.as_model(), questions, length_config=None, batch_size=batch_size)

    assert max(len(batch["input_ids"]) for batch in model.inputs) <= batch_size
    assert [len(own) for own in outputs] == [len(own) for own in questions]
    alone = TorchModel(bert, file)
    for own_windows, own_outputs in zip(questions, outputs, strict=True):
        for window, output in zip(own_windows, own_outputs, strict=True):
            ids = np.array([window.encoding.ids])
            types = np.array([[0] * 6 + [1] * (len(window) - 6)])  # [CLS] w h o ? [SEP] before the context
            expected = alone(ids, attention_mask=np.ones_like(ids), token_type_ids=types, length_config=None)
            n = len(window)
            np.testing.assert_allclose(output.start_logits[:n], expected.start_logits[0], atol=1e-5)
            np.testing.assert_allclose(output.end_logits[:n], expected.end_logits[0], atol=1e-5)
            assert output.kept == {1: n // 3}
            assert [p for p in output.kept_positions[1].tolist() if p < n] == list(range(n // 3))


def test_the_model_reads_what_transformers_would_give_it(tmp_path: Path) -> None:
    file = letter_tokenizer(tmp_path)
    model = TorchModel(tiny_bert(), file)
    windows = WindowTokenizer(file)("who?", "one two three " * 9, max_seq_len=40, doc_stride=10)
    run_windows(model.as_model(), [windows], length_config=None, batch_size=1)
    expected = transformers_tokenizer(file)(
        "who?",
        "one two three " * 9,
        truncation="only_second",
        max_length=40,
        stride=10,
        return_overflowing_tokens=True,
        return_token_type_ids=True,
    )
    assert len(model.inputs) == len(expected["input_ids"]) > 2
    given = sorted(model.inputs, key=lambda inputs: expected["input_ids"].index(inputs["input_ids"][0].tolist()))
    for i, inputs in enumerate(given):
        assert {name: array[0].tolist() for name, array in inputs.items()} == {
            name: expected[name][i] for name in ("input_ids", "attention_mask", "token_type_ids")
        }
