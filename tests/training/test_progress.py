from pathlib import Path

import pytest

from dynamic_tinybert.runtime.common.journal import Journal
from dynamic_tinybert.training.progress import STEP, Progress


def test_lines_have_mean_losses_and_the_time_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    lines: list[str] = []
    monkeypatch.setattr("dynamic_tinybert.training.progress.monotonic", lambda: now)
    with Journal(tmp_path / "journal", {}) as journal:
        progress = Progress(journal, 20, lines.append)
        for step in range(1, 11):
            now += 6.0
            progress(step, {"answers": float(step)} | ({"dropped": 2.0} if step > 5 else {}))
        assert lines == [
            "step 4 of 20: loss 2.500 (answers 2.500), 6.00 s a step, 1.6 min left",
            "step 8 of 20: loss 6.500 (answers 4.500, dropped 2.000), 6.00 s a step, 1.2 min left",
        ]
        assert list(journal.all(STEP)) == [str(step) for step in range(1, 11)]
        resumed = Progress(journal, 20, lines.append)
        now += 30.0
        resumed(11, {"answers": 1.0})
        assert lines[-1] == "step 11 of 20: loss 1.000 (answers 1.000)"
        resumed(20, {"answers": 1.0})
        assert lines[-1].startswith("step 20 of 20")  # the last step is always told
