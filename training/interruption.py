"""SIGINT and SIGTERM during a training: save a checkpoint, then stop."""

from __future__ import annotations

import signal
import threading
from contextlib import ExitStack
from types import FrameType, TracebackType
from typing import Self

from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import TrainerControl, TrainerState


class Interruption:
    """Notes the first SIGINT or SIGTERM, so that a training can save and stop; a second signal ends it at once.

    Attributes:
        signum: The signal that was received, or None.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._restore = ExitStack()

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._restore.callback(signal.signal, signum, signal.signal(signum, self._note))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._restore.close()

    def end(self) -> None:
        """If a signal was received, raise the KeyboardInterrupt or SystemExit that ends the process."""
        if self.signum == signal.SIGINT:
            raise KeyboardInterrupt
        if self.signum is not None:
            raise SystemExit(128 + self.signum)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        second, self.signum = self.signum is not None, signum
        if second:
            self.end()


class SaveAndStop(TrainerCallback):
    """Makes transformers' Trainer save and stop after the step during which a signal was received."""

    def __init__(self, interruption: Interruption) -> None:
        self._interruption = interruption

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> TrainerControl:
        """Set the flags to save and stop, if a signal was received."""
        if self._interruption.signum is not None:
            control.should_save = control.should_training_stop = True
        return control
