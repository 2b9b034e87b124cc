import numpy as np
import pytest
import torch
from torch.nn import functional

from dynamic_tinybert.calibration.significance.fitting import BATCH_SIZE, Fit, batches_by_length, fit_scorers
from dynamic_tinybert.calibration.significance.states import StateReader
from dynamic_tinybert.runtime.batches import stack
from dynamic_tinybert.runtime.bundles.bundle import Bundle, open_bundle
from dynamic_tinybert.runtime.common.errors import DataError
from dynamic_tinybert.runtime.tasks.measure import measure_of
from dynamic_tinybert.runtime.tasks.question_answering.example import Example
from dynamic_tinybert.runtime.tasks.question_answering.windows import WindowTokenizer

from support.tiny import tiny_bert, write_tiny_bundle

LAYERS = (1, 2)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return open_bundle(write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny", tiny_bert()))


def examples(count: int, seed: int = 0) -> list[Example]:
    """Questions about random words."""
    random = np.random.default_rng(seed)
    words = ["who", "what", "where", "the", "was", "in", "of", "and", "1", "2", "3", "a", "b", "c"]

    def text(length: int) -> str:
        return " ".join(random.choice(words, length))

    return [Example(str(k), text(3), text(int(random.integers(20, 60))), (), "") for k in range(count)]


def fit(bundle: Bundle, count: int = 60, **options: float) -> Fit:
    arguments = {"seconds": 60, "most_passes": 1, **options}
    return fit_scorers(bundle, examples(count), LAYERS, **arguments)


def test_states_are_those_of_pytorch(bundle: Bundle) -> None:
    tokenize = WindowTokenizer(bundle.tokenizer_json)
    windows = [w for e in examples(3) for w in tokenize(e.question, e.context, max_seq_len=128, doc_stride=64)]
    states = StateReader(bundle, LAYERS)(windows)

    seen: dict[int, torch.Tensor] = {}
    bert = tiny_bert()
    for layer in LAYERS:
        module = bert.get_submodule(f"bert.encoder.layer.{layer}.attention.output")
        module.register_forward_hook(lambda _, __, output, layer=layer: seen.update({layer: output}))
    inputs = {name: torch.from_numpy(array) for name, array in stack(windows).items()}
    with torch.no_grad():
        logits = bert(**inputs)
    real, own = states.real > 0, inputs["attention_mask"].bool().numpy()
    for layer in LAYERS:
        np.testing.assert_allclose(states.by_layer[layer][real], seen[layer].numpy()[own], atol=1e-4)
    np.testing.assert_allclose(states.outputs["start_logits"][real], logits.start_logits.numpy()[own], atol=1e-4)
    padding = ((0, 0), (0, real.shape[1] - logits.start_logits.shape[1]))
    np.testing.assert_array_equal(states.real, np.pad(inputs["attention_mask"], padding))
    np.testing.assert_array_equal(
        states.protected, np.pad(inputs["attention_mask"] * (1 - inputs["token_type_ids"]), padding)
    )


def test_scorers_learn_where_the_model_answers(bundle: Bundle) -> None:
    before, after = fit(bundle, seconds=1e-9), fit(bundle, most_passes=40)
    assert before.windows < after.windows
    for layer in LAYERS:
        assert after.losses[layer] < 0.97 * before.losses[layer]


def test_significance_held_out_is_that_of_the_scorers(bundle: Bundle) -> None:
    """A naive loop over the questions held out: the first tenth of those shuffled by the seed."""
    fitted = fit(bundle)
    shuffled = np.random.default_rng(0).permutation(60)[:6]
    tokenize, read = WindowTokenizer(bundle.tokenizer_json), StateReader(bundle, LAYERS)
    for layer, scorer in fitted.scorers.items():
        expected: list[float] = []
        for index in shuffled:
            example = examples(60)[index]
            for window in tokenize(example.question, example.context, max_seq_len=128, doc_stride=64):
                states = read([window])
                with torch.no_grad():
                    significance = scorer(
                        *(torch.from_numpy(a) for a in (states.by_layer[layer], states.protected, states.real))
                    )
                expected += significance[states.real > 0].tolist()
        np.testing.assert_allclose(np.sort(fitted.significance[layer]), np.sort(expected), atol=1e-4)


def test_the_loss_is_pytorchs_over_the_context(bundle: Bundle) -> None:
    """The target written as a loop: the chance that the answer starts or ends within two tokens."""
    fitted = fit(bundle, count=20)
    shuffled = np.random.default_rng(0).permutation(20)[:2]
    tokenize, read = WindowTokenizer(bundle.tokenizer_json), StateReader(bundle, LAYERS)
    chosen = sorted((examples(20)[i] for i in shuffled), key=lambda e: len(e.question) + len(e.context))
    states = read([w for e in chosen for w in tokenize(e.question, e.context, max_seq_len=128, doc_stride=64)])
    question, real = torch.from_numpy(states.protected), torch.from_numpy(states.real)
    for layer, scorer in fitted.scorers.items():
        with torch.no_grad():
            logits = scorer.logits(torch.from_numpy(states.by_layer[layer]), question, real)
        losses: list[float] = []
        for row in range(len(real)):
            context = [j for j in range(real.shape[1]) if real[row, j] and not question[row, j]]
            start, end = (
                dict(zip(context, functional.softmax(torch.from_numpy(a[row, context]), 0).tolist(), strict=True))
                for a in (states.outputs["start_logits"], states.outputs["end_logits"])
            )
            for j in context:
                near = range(j - 2, j + 3)
                target = min(1.0, sum(start.get(k, 0) + end.get(k, 0) for k in near))
                chance = torch.sigmoid(logits[row, j].double())
                losses.append(float(-5 * target * chance.log() - (1 - target) * (1 - chance).log()))
        assert fitted.losses[layer] == pytest.approx(np.mean(losses), rel=1e-4)


def test_the_same_seed_gives_the_same_scorers(bundle: Bundle) -> None:
    first, second, other = fit(bundle), fit(bundle), fit(bundle, seed=1)
    for layer in LAYERS:
        assert first.losses[layer] == pytest.approx(second.losses[layer], rel=1e-3)
        assert first.losses[layer] != pytest.approx(other.losses[layer], rel=1e-3)


def test_questions_that_cannot_be_read_are_skipped_or_refused(bundle: Bundle) -> None:
    long = Example("long", "what " * 200, "who was in the 1", (), "")
    fitted = fit_scorers(bundle, [*examples(30), long], LAYERS, seconds=60, most_passes=1)
    assert fitted.windows > 20
    with pytest.raises(DataError, match="cannot read the questions to fit on: the question is too long"):
        fit_scorers(bundle, [long] * 20, LAYERS, seconds=60, most_passes=1)


@pytest.mark.parametrize("count", [1, BATCH_SIZE, 2 * BATCH_SIZE + 3])
def test_batches_hold_everything_once_and_neighbours_in_length(bundle: Bundle, count: int) -> None:
    batches = batches_by_length(measure_of(bundle), examples(count))
    assert sorted(int(example.id) for batch in batches for example in batch) == list(range(count))
    assert [len(batch) for batch in batches[:-1]] == [BATCH_SIZE] * (len(batches) - 1)
    lengths = [len(example.question) + len(example.context) for batch in batches for example in batch]
    assert lengths == sorted(lengths)
