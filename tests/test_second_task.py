"""A second task as a proof that a task is a matter of its own files: regression from [CLS], one number for a text.

This module holds all of it: the model with its head, the task's part of the graph and of the runtime, its data and its
measure. It is exported, run with selection and calibrated by registering it, and by nothing else.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import openvino as ov
import pytest
import torch
from openvino import opset13 as ops
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import BertConfig, BertModel, BertPreTrainedModel

from dynamic_tinybert.calibration import calibrate
from dynamic_tinybert.calibration.int8.tuning import Int8Change
from dynamic_tinybert.export import export_model
from dynamic_tinybert.export.parity import TokenBatch
from dynamic_tinybert.export.tasks import SAMPLE_READERS, sample_reader
from dynamic_tinybert.export.tasks.samples import Samples
from dynamic_tinybert.modeling import ReferenceModel, Scorer, load_scorers, save_scorers
from dynamic_tinybert.modeling.scorer import ContextRule
from dynamic_tinybert.modeling.tasks import MODEL_TASKS, model_task, task_of
from dynamic_tinybert.modeling.tasks.task import Linear, ModelTask
from dynamic_tinybert.runtime import LengthAdaptiveModel, QuestionAnswerer, explain
from dynamic_tinybert.runtime.batches import kept_by_layer, stack
from dynamic_tinybert.runtime.bundles.bundle import Bundle, open_bundle
from dynamic_tinybert.runtime.common.errors import BundleFormatError, CheckpointError, DataError, InvalidInputError
from dynamic_tinybert.runtime.encoder.named_nodes import NamedNodes
from dynamic_tinybert.runtime.encoder.task_graph import Rows
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.tasks import TASKS, task_named
from dynamic_tinybert.runtime.tasks.measure import MEASURES, ReadExamples, Wording
from dynamic_tinybert.runtime.tasks.question_answering.evaluation import evaluate
from dynamic_tinybert.runtime.tasks.question_answering.example import Example as Question
from dynamic_tinybert.runtime.tasks.task import KeptPositions, Task

from support.tiny import tiny_tokenizer

NAME = "cls_regression"
LAYERS, HIDDEN = 4, 64
WORDS = ["who", "what", "where", "the", "was", "in", "of", "and", "1", "2", "3", *"abcdefghij"]


# The model, and what export, calibration and training need of it.


class BertForClsRegression(BertPreTrainedModel):
    """One number from the last state of [CLS]."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config, add_pooling_layer=False)
        self.regressor = nn.Linear(config.hidden_size, 1)
        self.post_init()

    def forward(self, **inputs: Tensor) -> Tensor:
        """Values [B]."""
        values: Tensor = self.regressor(self.bert(**inputs).last_hidden_state[:, 0])
        return values[:, 0]


class ClsRegressionModel:
    """The `ModelTask`."""

    name = NAME
    architecture = BertForClsRegression
    head_linears = ("regressor",)
    no_head = "regression head (regressor.weight)"
    per_token = False
    first_token_only = True
    context_rule = False

    def fits(self, model: BertPreTrainedModel, head_weight: Tensor) -> bool:
        return head_weight.shape[0] == 1

    def unsupported(self, config: Mapping[str, object]) -> str | None:
        return None

    def protected(self, inputs: Mapping[str, Tensor]) -> Tensor:
        protected = torch.zeros_like(inputs["attention_mask"], dtype=torch.bool)
        protected[:, 0] = True
        return protected

    def outputs(self, model: BertPreTrainedModel, states: Tensor) -> dict[str, Tensor]:
        return {"value": cast(BertForClsRegression, model).regressor(states[:, 0])[:, 0]}

    def head_nodes(self, linear: Linear, states: ov.Output) -> Iterator[tuple[str, ov.Node]]:
        first = ops.gather(states, [0], 1)
        yield "value", ops.reshape(linear("regressor", first.output(0)), [-1], False)

    def significance_targets(self, outputs: Mapping[str, Tensor], context: Tensor) -> Tensor:
        """A token is worth keeping if [CLS] attends to it in the last layer, more than to a token on average."""
        query, key = (outputs[name] for name in self.target_nodes(LAYERS))
        scores = (query[:, :1] @ key.mT)[:, 0] / query.shape[2] ** 0.5
        attention: Tensor = scores.masked_fill(context == 0, -torch.inf).softmax(1)
        return (attention * context.sum(1, keepdim=True) / 2).clamp(0, 1)

    def importance_scalar(
        self, outputs: Mapping[str, Tensor], teacher: Mapping[str, Tensor], inputs: Mapping[str, Tensor]
    ) -> Tensor:
        return outputs["value"].sum()

    def output_scale(self, model: BertPreTrainedModel, output: Tensor) -> float:
        return float(output.std(correction=0)) + 1e-3

    def target_nodes(self, num_layers: int) -> tuple[str, ...]:
        return (f"layer.{num_layers - 1}.query", f"layer.{num_layers - 1}.key")


MODEL_TASK: ModelTask = ClsRegressionModel()


# The runtime's part.


@dataclass(frozen=True)
class Values:
    """Values, float32 [B], and the kept positions."""

    values: npt.NDArray[np.float32]
    kept_positions: KeptPositions


class ClsRegression:
    """The `Task`."""

    name = NAME
    output_names = ("value",)
    first_token_only = True

    def check_head(self, model: ov.Model, nodes: NamedNodes) -> None:
        if model.output("value").get_partial_shape().rank != ov.Dimension(1):
            raise BundleFormatError("value of the graph must be [B]")

    def protected(self, nodes: NamedNodes) -> ov.Output:
        mask = ops.convert(nodes["attention_mask"], np.float32)
        length = ops.gather(ops.shape_of(mask), 1, 0)
        is_first = ops.equal(ops.range(np.int64(0), length, np.int64(1), "i64"), np.int64(0))
        return ops.multiply(mask, ops.convert(is_first, np.float32)).output(0)

    def put_head(self, nodes: NamedNodes, rows: Rows) -> None:
        """[CLS] is the only row of the last layer."""

    def output(self, arrays: Mapping[str, npt.NDArray[np.float32]], length: int, kept: KeptPositions) -> Values:
        return Values(arrays["value"], kept)


TASK: Task = ClsRegression()


# Its data and its measure.


@dataclass(frozen=True)
class Tokens:
    """The tokens of one text."""

    input_ids: Sequence[int]
    token_type_ids: Sequence[int]

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True)
class Example:
    """A text with its right value."""

    text: str
    value: float


@dataclass(frozen=True)
class Run:
    """The `Scored`: closeness to the right values, 100 for equal ones."""

    scores: tuple[float, ...]
    milliseconds: tuple[float, ...]
    window_lengths: tuple[int, ...]
    window_kept: tuple[tuple[int, ...], ...]
    mean_macs: float

    @property
    def means(self) -> dict[str, float]:
        return {"closeness": fmean(self.scores)}

    @property
    def mean_kept(self) -> tuple[float, ...]:
        return tuple(map(fmean, zip(*self.window_kept, strict=True)))

    @property
    def example_ms(self) -> tuple[float, ...]:
        return self.milliseconds

    def latency_ms(self, percentile: float) -> float | None:
        return float(np.percentile(self.milliseconds, percentile)) if self.milliseconds else None

    def join(self, others: Sequence["Run"]) -> "Run":
        runs = [self, *others]
        return Run(
            sum((run.scores for run in runs), ()),
            sum((run.milliseconds for run in runs), ()),
            sum((run.window_lengths for run in runs), ()),
            sum((run.window_kept for run in runs), ()),
            fmean([run.mean_macs for run in runs], [len(run.scores) for run in runs]),
        )


def closeness(found: float, right: float) -> float:
    return 100 * max(0.0, 1 - abs(found - right) / 20)


class Closeness:
    """The `Scoring`."""

    scored_by = "values"
    lines: tuple[str, ...] = ()

    def __init__(self, measure: "ClosenessMeasure", examples: Sequence[Example]) -> None:
        self.measure, self.examples = measure, examples
        self.manifest: dict[str, float] = {}

    def evaluate(
        self, model: LengthAdaptiveModel, length_config: LengthConfig, *, batch_size: int, span: slice = slice(None)
    ) -> Run:
        runs = []
        examples = self.examples[span]
        for first in range(0, len(examples), batch_size):
            batch = examples[first : first + batch_size]
            start = perf_counter()
            sequences = [sequence for example in batch for sequence in self.measure.windows_of(example)]
            output = model(**stack(sequences), length_config=length_config)
            seconds = perf_counter() - start
            longest = max(map(len, sequences))
            counts = {layer: (positions < longest).sum(1) for layer, positions in output.kept_positions.items()}
            kept = tuple(
                kept_by_layer({layer: int(own[row]) for layer, own in counts.items()}, len(sequence), LAYERS)
                for row, sequence in enumerate(sequences)
            )
            lengths = tuple(map(len, sequences))
            runs.append(
                Run(
                    tuple(closeness(float(v), example.value) for v, example in zip(output.values, batch, strict=True)),
                    (1e3 * seconds,) if batch_size == 1 else (),
                    lengths,
                    kept,
                    fmean(model.executed_macs(length_config, n, own) for n, own in zip(lengths, kept, strict=True)),
                )
            )
        return runs[0].join(runs[1:])

    def for_reporting(self, model: LengthAdaptiveModel, examples: Sequence[Example]) -> "Closeness":
        return Closeness(self.measure, examples)


class ClosenessMeasure:
    """The `Measure`."""

    metrics: Mapping[str, str] = {"closeness": "closeness"}
    examples = groups = "texts"
    wording = Wording("text", "Each text was run alone.", "It is closeness to the right values.")
    padded_length = None

    def __init__(self, tokenizer_file: Path) -> None:
        self.tokenizer = Tokenizer.from_file(str(tokenizer_file))

    def read(self, path: Path, *, strict: bool) -> ReadExamples[Example]:
        return ReadExamples([Example(**row) for row in json.loads(path.read_text())])

    def group_of(self, example: Example) -> str:
        return example.text

    def size_of(self, example: Example) -> int:
        return len(example.text)

    def windows_of(self, example: Example) -> list[Tokens]:
        encoding = self.tokenizer.encode(example.text)
        return [Tokens(encoding.ids, encoding.type_ids)]

    def refuse_all(self, examples: str) -> DataError:
        return DataError(f"the model cannot read any of {examples}")

    def scoring(self, model: LengthAdaptiveModel, examples: Sequence[Example]) -> Closeness:
        return Closeness(self, examples)


def measure_of_bundle(bundle: Bundle) -> ClosenessMeasure:
    return ClosenessMeasure(bundle.tokenizer_json)


# What INT8 needs of its data.


@dataclass(frozen=True)
class Texts:
    """The `HeldOut`."""

    name: str
    batches: Sequence[TokenBatch]

    def __len__(self) -> int:
        return len(self.batches)

    def first(self, count: int | None) -> "Texts":
        return Texts(self.name, self.batches[:count])

    def run(self, model: LengthAdaptiveModel) -> list[float]:
        return [float(model(**batch, length_config="full").values[0]) for batch in self.batches]

    def compare(self, fp32: Sequence[float], int8: Sequence[float]) -> Int8Change:
        error = float(np.abs(np.subtract(fp32, int8)).mean())
        return Int8Change(error, error, 100 * float(np.equal(np.round(fp32), np.round(int8)).mean()), None, len(self))


def read_texts(
    tokenizer_file: Path, data: Path, validation: Path | None, count: int, max_length: int
) -> Samples[Texts]:
    measure = ClosenessMeasure(tokenizer_file)
    batches = [stack(measure.windows_of(example)) for example in measure.read(data, strict=False).examples]
    return Samples(batches[:count], Texts(data.name, batches[count:]))


# The proof.


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, NAME, f"{__name__}:TASK")
    monkeypatch.setitem(MODEL_TASKS, NAME, f"{__name__}:MODEL_TASK")
    monkeypatch.setitem(MEASURES, NAME, f"{__name__}:measure_of_bundle")
    monkeypatch.setitem(SAMPLE_READERS, NAME, f"{__name__}:read_texts")


@pytest.fixture(scope="module")
def model() -> BertForClsRegression:
    torch.manual_seed(0)
    config = BertConfig.from_dict(
        {
            "vocab_size": 100,
            "hidden_size": HIDDEN,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 4,
            "intermediate_size": 2048,  # layers that cost more than their scorers
            "max_position_embeddings": 128,
            "initializer_range": 0.2,
            "attn_implementation": "eager",
        }
    )
    return cast(BertForClsRegression, BertForClsRegression(config).eval())


@pytest.fixture(scope="module")
def scorers() -> dict[int, Scorer]:
    torch.manual_seed(1)
    return {layer: Scorer(HIDDEN) for layer in (0, 2)}


@pytest.fixture(scope="module")
def cls_checkpoint(
    model: BertForClsRegression, scorers: dict[int, Scorer], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    model.save_pretrained(folder)
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    save_scorers(scorers, folder / "significance.safetensors")
    return folder


def texts(count: int) -> list[str]:
    random = np.random.default_rng(0)
    return [" ".join(random.choice(WORDS, random.integers(60, 120))) for _ in range(count)]


def batch_of(some: Sequence[str]) -> dict[str, npt.NDArray[np.int64]]:
    encodings = [tiny_tokenizer().encode(text) for text in some]
    return stack([Tokens(encoding.ids, encoding.type_ids) for encoding in encodings])


def tensors(batch: Mapping[str, npt.NDArray[np.int64]]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in batch.items()}


def write_texts(file: Path, model: BertForClsRegression, some: Sequence[str]) -> Path:
    """Texts with the values that the model gives."""
    with torch.inference_mode():
        rows = [{"text": text, "value": float(model(**tensors(batch_of([text])))[0])} for text in some]
    file.write_text(json.dumps(rows))
    return file


def test_values_under_selection_are_those_of_the_reference(
    cls_checkpoint: Path, model: BertForClsRegression, scorers: dict[int, Scorer], tmp_path: Path
) -> None:
    ratios = LengthConfig((0.8, 0.6, 0.4, 0.2))
    report = export_model(cls_checkpoint, tmp_path / "b", precision="fp32", length_configs={"half": ratios})
    assert list(report.parity) == ["full", "half", "all scorers"]
    assert report.parity["half"].chosen_from > 0
    bundle = open_bundle(tmp_path / "b")
    assert (bundle.task, bundle.significance) == (NAME, "learnt")

    batch = batch_of(texts(5))
    runtime = LengthAdaptiveModel.from_pretrained(tmp_path / "b", precision="f32")
    full, half = (runtime(**batch, length_config=name) for name in ("full", "half"))
    with torch.inference_mode():
        plain = model(**tensors(batch)).numpy()
        expected = ReferenceModel(model, "learnt", scorers)(**tensors(batch), length_config=ratios)
    np.testing.assert_allclose(full.values, plain, atol=1e-4)
    np.testing.assert_allclose(half.values, expected.value.numpy(), atol=1e-4)
    assert np.abs(half.values - full.values).max() > 0.1  # dropping changes the values
    length = batch["input_ids"].shape[1]
    for layer, positions in half.kept_positions.items():
        assert positions.shape[1] < length
        assert (positions[:, 0] == 0).all()  # [CLS]
        own = [set(row[row < length].tolist()) for row in positions]
        assert own == [set(row[row < length].tolist()) for row in expected.kept[layer].numpy()]


def test_int8_is_calibrated_on_data_of_the_task(
    cls_checkpoint: Path, model: BertForClsRegression, tmp_path: Path
) -> None:
    data = write_texts(tmp_path / "texts.json", model, texts(40))
    export_model(cls_checkpoint, tmp_path / "fp32", precision="fp32")
    report = export_model(cls_checkpoint, tmp_path / "int8", calibration_data=data, num_samples=8, tune=False)
    (step,) = report.int8_steps
    assert step.change.questions == 32
    assert 0 < step.change.logit_error < 0.5
    batch = batch_of(texts(5))
    before, after = (
        LengthAdaptiveModel.from_pretrained(tmp_path / name)(**batch, length_config="full").values
        for name in ("fp32", "int8")
    )
    np.testing.assert_allclose(after, before, atol=np.ptp(before) / 2)
    assert (after != before).all()


@pytest.mark.slow
def test_calibration_finds_length_configurations_by_the_score_of_the_task(
    cls_checkpoint: Path, model: BertForClsRegression, tmp_path: Path
) -> None:
    export_model(cls_checkpoint, tmp_path / "b", precision="fp32")
    every = iter(texts(160))
    fitting, choosing, reporting = (
        write_texts(tmp_path / f"{name}.json", model, list(islice(every, count)))
        for name, count in (("fitting", 50), ("choosing", 60), ("reporting", 50))
    )
    result = calibrate(
        tmp_path / "b",
        fitting,
        validation=choosing,
        test=reporting,
        budget_minutes=20,
        evaluations=6,
        num_threads=1,
        say=print,
    )
    bundle = open_bundle(tmp_path / "b")
    assert (bundle.task, bundle.significance) == (NAME, "learnt")
    assert bundle.scorers is not None
    assert set(bundle.length_configs) > {"full"}
    fitted: dict[int, Scorer | ContextRule] = {**load_scorers(bundle.scorers), LAYERS - 2: ContextRule()}
    reference, runtime = ReferenceModel(model, "learnt", fitted), LengthAdaptiveModel(bundle)
    examples = ClosenessMeasure(bundle.tokenizer_json).read(reporting, strict=True).examples
    for name, named in bundle.length_configs.items():
        figures: Mapping[str, Any] = named.measured or {}
        values = []
        for example in examples:
            batch = batch_of([example.text])
            output = runtime(**batch, length_config=name)
            values.append(float(output.values[0]))
            with torch.inference_mode():
                expected = reference(**tensors(batch), length_config=named.config)
            assert values[-1] == pytest.approx(float(expected.value[0]), abs=0.01)
            assert all((positions[:, 0] == 0).all() for positions in output.kept_positions.values())  # [CLS]
        scores = [closeness(value, example.value) for value, example in zip(values, examples, strict=True)]
        assert figures["closeness"] == pytest.approx(fmean(scores), abs=0.02)
        if name == "full":
            assert fmean(scores) > 99.99
        else:
            assert figures["macs_fewer"] > 1.1
            assert fmean(scores) < 99.99
    assert list(result.metrics) == ["closeness"]


def test_what_is_of_no_task_is_refused(cls_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert task_of(BertForClsRegression(BertConfig.from_pretrained(cls_checkpoint))) is MODEL_TASK
    monkeypatch.delitem(MODEL_TASKS, NAME)
    with pytest.raises(InvalidInputError, match=f"no task '{NAME}'; the tasks are: question_answering"):
        model_task(NAME)
    with pytest.raises(InvalidInputError, match=r"has the head of no task.*BertForQuestionAnswering"):
        task_of(BertForClsRegression(BertConfig.from_pretrained(cls_checkpoint)))
    with pytest.raises(CheckpointError, match="is a BertForClsRegression and has no question-answering head "):
        export_model(cls_checkpoint, tmp_path / "b", precision="fp32")
    monkeypatch.delitem(SAMPLE_READERS, NAME)
    with pytest.raises(InvalidInputError, match=f"cannot be calibrated for the task '{NAME}'"):
        sample_reader(NAME)
    assert task_named(NAME) is TASK


def test_question_answering_refuses_a_model_of_another_task(cls_checkpoint: Path, tmp_path: Path) -> None:
    export_model(cls_checkpoint, tmp_path / "bundle", precision="fp32")
    model = LengthAdaptiveModel.from_pretrained(tmp_path / "bundle")
    example = Question("x", "who ?", "the cat sat .", ("the cat",), "")
    for ask in (
        lambda: QuestionAnswerer(model),
        lambda: explain(model, example.question, example.context),
        lambda: evaluate(model, [example]),
    ):
        with pytest.raises(InvalidInputError, match=f"this model is for '{NAME}', and does not answer questions"):
            ask()
