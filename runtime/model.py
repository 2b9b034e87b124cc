"""A length-adaptive model: a bundle, compiled on demand for each length configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov

from .bundles.bundle import Bundle, NamedLengthConfig, open_bundle
from .bundles.hub import default_bundle, resolve_bundle
from .common.checks import require_int
from .common.errors import InvalidInputError, LengthConfigError
from .encoder.compilation import LENGTH_MULTIPLE, compile_bundle, float_precision, selecting_graph
from .encoder.compiled import CompiledGraph, CompiledGraphs
from .encoder.executed import macs_of_sequence
from .encoder.gate import gate
from .encoder.graph import bounds, kept_positions
from .encoder.inputs import checked_inputs, padded_to
from .encoder.outputs import check_finite
from .encoder.plain_graph import read_plain_graph
from .encoder.scorer import LayerSignificance, carried_out
from .encoder.scorer_file import load_scorer_tensors
from .length_config import LengthConfig
from .loading import load_pickled, openvino_properties, reload_arguments, with_defaults
from .tasks import task_named


class LengthAdaptiveModel:
    """Runs a bundle at any length configuration. Safe to call from many threads, and to fork and pickle.

    A forked process compiles its graphs again on first use, with as many threads as its parent; a fork waits until
    running requests have been answered. A pickle holds where the bundle was loaded from and the arguments of
    `from_pretrained` except the token; unpickling loads the bundle again.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        ov_config: Mapping[str, object] | None = None,
        elastic: bool = False,
        max_compiled: int = 8,
    ) -> None:
        """Load an opened bundle; see `from_pretrained` for the arguments."""
        require_int("max_compiled", max_compiled, 1)
        self.bundle = bundle
        self._task = task_named(bundle.task)
        self._ov_config = with_defaults(ov_config, precision=float_precision(bundle, self._task))
        self._elastic = elastic
        self._plain = read_plain_graph(bundle, self._task)
        self._scorers: dict[int, LayerSignificance] | None = None
        if bundle.scorers is not None:
            self._scorers = load_scorer_tensors(bundle.scorers, bundle.shape)
        self._named: dict[str, LengthConfig] = {}  # resolved, by name
        self._graphs = CompiledGraphs(max_compiled)
        given = {"ov_config": ov_config, "elastic": elastic, "max_compiled": max_compiled}
        self._arguments = reload_arguments({"id_or_path": bundle.path, **given}, bundle.path)

    def __reduce__(self) -> tuple[Callable[..., LengthAdaptiveModel], tuple[type, dict[str, Any]]]:
        return load_pickled, (type(self), self._arguments)

    @classmethod
    def from_pretrained(
        cls,
        id_or_path: str | Path | None = None,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        num_threads: int | None = None,
        num_streams: int | str | None = None,
        performance_hint: str | None = None,
        precision: str | None = None,
        compiled_cache_dir: str | Path | None = None,
        ov_config: Mapping[str, object] | None = None,
        elastic: bool = False,
        max_compiled: int = 8,
    ) -> LengthAdaptiveModel:
        """Load a bundle from a local folder or the Hugging Face Hub.

        Args:
            id_or_path: Folder or Hub id of a bundle; None takes the one embedded in the package.
            revision: Branch, tag or commit on the Hub.
            token: Hub token.
            cache_dir: Where downloads are kept.
            local_files_only: Never touch the network.
            num_threads: CPU threads; by default as many as the process's CPU affinity and its cgroup's quota allow.
            num_streams: Number of requests that OpenVINO runs in parallel.
            performance_hint: ``LATENCY`` (default) or ``THROUGHPUT``.
            precision: ``f32`` or ``bf16`` for layers that are not INT8; by default the faster one on this CPU.
            compiled_cache_dir: Folder in which OpenVINO caches what it compiles (few INT8 graphs), to start faster.
            ov_config: Any other OpenVINO property by its own name.
            elastic: Serve all length configurations from one graph that takes them as inputs; it needs less memory
                than a graph for each, and is somewhat slower.
            max_compiled: Number of compiled graphs to keep in memory; beyond it the least recently used is evicted.

        Raises:
            BundleError: The bundle is missing, damaged or of a newer format.
            ExtensionError: The C++ extension is missing or was built for another OpenVINO.
            InferenceError: OpenVINO cannot read the bundle's model.
            InvalidInputError: A property is given both as an argument and in `ov_config`.
            StorageError: A download could not be stored.
        """
        short = {
            "num_threads": num_threads,
            "num_streams": num_streams,
            "performance_hint": performance_hint,
            "precision": precision,
            "compiled_cache_dir": None if compiled_cache_dir is None else Path(compiled_cache_dir),
        }
        properties = openvino_properties(short, ov_config)
        where: dict[str, Any] = {"revision": revision, "cache_dir": cache_dir, "local_files_only": local_files_only}
        path = default_bundle() if id_or_path is None else resolve_bundle(id_or_path, token=token, **where)
        model = cls(open_bundle(path), ov_config=properties, elastic=elastic, max_compiled=max_compiled)
        arguments = {
            "id_or_path": id_or_path,
            **where,
            **short,
            "ov_config": ov_config,
            "elastic": elastic,
            "max_compiled": max_compiled,
        }
        model._arguments = reload_arguments(arguments, path)
        return model

    @property
    def max_compiled(self) -> int:
        """Number of compiled graphs that are kept in memory."""
        return self._graphs.limit

    @property
    def parallel_requests(self) -> int:
        """Number of calls that run at once, by OpenVINO's settings; the default length configuration is compiled."""
        return self._graph(None if self._elastic else self.resolve(None)).parallel

    @property
    def has_elastic_graph(self) -> bool:
        """Whether the elastic graph is compiled; otherwise the next call that needs it waits for that."""
        return None in self._graphs

    def is_compiled(self, length_config: str | LengthConfig | Sequence[float] | None) -> bool:
        """Whether the graph of a length configuration is compiled; otherwise the next call at it waits for that."""
        return (None if self._elastic else self.resolve(length_config)) in self._graphs

    @property
    def execution(self) -> dict[str, str]:
        """How requests run: OpenVINO's properties by name, and whether one elastic graph serves all configurations."""
        return {**{name: str(value) for name, value in self._ov_config.items()}, "elastic": str(self._elastic)}

    @property
    def length_configs(self) -> Mapping[str, NamedLengthConfig]:
        """The bundle's named length configurations, each with its measured figures."""
        return self.bundle.length_configs

    @property
    def max_length(self) -> int:
        """Maximum length of an input in tokens, special tokens included."""
        return self.bundle.max_length

    @property
    def tokenizer_file(self) -> Path:
        """The bundle's tokenizer.json."""
        return self.bundle.tokenizer_json

    def resolve(self, length_config: str | LengthConfig | Sequence[float] | None) -> LengthConfig:
        """The length configuration that the model actually executes, given a name, keep ratios or None.

        Any keep ratios can be given. With learnt significance, a layer without a scorer selects by the significance
        from the nearest layer before it; before the first scorer nothing ranks tokens, so ratios there become 1.

        Args:
            length_config: Name in the bundle, configuration, or one keep ratio per layer; None for the bundle's
                default.

        Raises:
            LengthConfigError: The name is unknown, the keep ratios are invalid or do not match the number of layers, or
                a layer without a scorer has a threshold.
        """
        if length_config is None:
            length_config = self.bundle.default_length_config
        if isinstance(length_config, str):
            if length_config not in self._named:
                if length_config not in self.length_configs:
                    known = ", ".join(self.length_configs)
                    raise LengthConfigError(f"unknown length configuration {length_config!r}; this bundle has: {known}")
                self._named[length_config] = self.resolve(self.length_configs[length_config].config)
            return self._named[length_config]
        if not isinstance(length_config, LengthConfig):
            length_config = LengthConfig(length_config)  # type: ignore[arg-type]  # the constructor converts and checks
        num_layers, first_token_only = self.bundle.shape.num_layers, self._task.first_token_only
        return carried_out(length_config, num_layers, self._scorers, first_token_only=first_token_only)

    def __call__(
        self,
        input_ids: npt.ArrayLike,
        *,
        attention_mask: npt.ArrayLike | None = None,
        token_type_ids: npt.ArrayLike | None = None,
        length_config: str | LengthConfig | Sequence[float] | None = None,
        length_configs: Iterable[str | LengthConfig | Sequence[float] | None] | None = None,
    ) -> Any:  # noqa: ANN401 - the type is the task's
        """The outputs of the model's task for a batch; for question answering a `QuestionAnsweringOutput`.

        Args:
            input_ids: Token ids, int64 [B, L].
            attention_mask: 1 for real tokens, 0 for padding, int64 [B, L]; all real if not given. Padding between real
                tokens does not change their positions, and is ignored otherwise.
            token_type_ids: Segment of each token, int64 [B, L]; for question answering 0 for [CLS], the question and
                its [SEP], 1 for the context. All 0 if not given, which with learnt significance makes a
                question-answering model protect every token.
            length_config: Name in the bundle, configuration, or one keep ratio per layer; None for the
                bundle's default. Each has a graph of its own, which is compiled on first use.
            length_configs: One of these for each row, instead. They run in the elastic graph, one for all
                configurations, so that none is compiled for this call. Each row keeps what it keeps alone.

        Raises:
            InvalidInputError: Shapes do not match, an id is outside the vocabulary, the input is too long, or there are
                not as many length configurations as rows.
            LengthConfigError: The length configuration is unknown or does not fit the model.
            InferenceError: OpenVINO failed, or computed logits that are not finite.
        """
        inputs = checked_inputs(self.bundle, input_ids, attention_mask, token_type_ids)
        rows, length = inputs["input_ids"].shape
        each = [length_config] if length_configs is None else list(length_configs)
        if length_configs is not None and (length_config is not None or len(each) != rows):
            what = f"length_config={length_config!r} and {len(each)} length_configs for {rows} rows"
            raise InvalidInputError(f"{what}; give one of both, and as many length_configs as rows")
        configs = [self.resolve(config) for config in each]
        padded = min(-(-length // LENGTH_MULTIPLE) * LENGTH_MULTIPLE, self.max_length)
        arrays: dict[str, npt.NDArray[Any]] = {name: padded_to(array, padded) for name, array in inputs.items()}
        if elastic := self._elastic or length_configs is not None:
            arrays |= bounds(*configs)
        with gate:  # else both would enter it
            outputs = self._graph(None if elastic else configs[0]).infer(arrays)
        check_finite(outputs, self._task.output_names, padded)
        return self._task.output(outputs, length, kept_positions(outputs, length))

    def warm_up(
        self,
        length_configs: Iterable[str | LengthConfig | Sequence[float]] | None = None,
        lengths: Iterable[int] | None = None,
    ) -> None:
        """Compile graphs and prepare their kernels before the first request needs them.

        Args:
            length_configs: By default the bundle's first `max_compiled` ones, which all stay in memory.
            lengths: Input lengths in tokens; by default every multiple of 8 up to 384.

        Raises:
            InvalidInputError, LengthConfigError, InferenceError: As for `__call__`.
        """
        configs = list(self.length_configs)[: self.max_compiled] if length_configs is None else length_configs
        sizes = range(LENGTH_MULTIPLE, min(384, self.max_length) + 1, LENGTH_MULTIPLE) if lengths is None else lengths
        sizes = list(sizes)
        for config in configs:
            for length in sizes:
                self(np.zeros((1, length), np.int64), length_config=config)

    def executed_macs(
        self, length_config: str | LengthConfig | Sequence[float] | None, length: int, kept: Sequence[int]
    ) -> int:
        """Multiply-accumulates that the encoder and its scorers execute for one sequence.

        Args:
            length_config: As for `__call__`.
            length: Number of real tokens of the sequence.
            kept: For each layer, the number of tokens that it passed on; of fewer layers for their cost alone.

        Raises:
            LengthConfigError: The length configuration is unknown or does not fit the model.
        """
        return macs_of_sequence(self.bundle, self._task, self._scorers, self.resolve(length_config), length, kept)

    def specialised_graph(
        self,
        length_config: str | LengthConfig | Sequence[float] | None = None,
        **options: Any,  # noqa: ANN401 - those of `selecting_graph`
    ) -> ov.Model:
        """The graph of one length configuration, not compiled.

        Raises:
            LengthConfigError: The length configuration is unknown or does not fit the model.
        """
        parts = (self.bundle, self._task, self._plain, self._scorers, self.resolve(length_config))
        with gate:
            return selecting_graph(*parts, **options)

    def _graph(self, config: LengthConfig | None) -> CompiledGraph:
        """The specialised graph of a configuration, or the elastic one."""
        # The partial must not hold `self`: graphs would keep it alive.
        compile_model = partial(
            compile_bundle, self.bundle, self._task, self._plain, self._scorers, config, self._ov_config
        )
        return self._graphs.get(config, lambda: CompiledGraph(compile_model))
