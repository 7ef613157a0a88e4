"""A suite made small enough for the simulator is still the same suite."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from warpsmith.task import load_task

TOOL = Path(__file__).parents[1] / "tools" / "shrink_suite.py"
TASK = """import torch

batch_size = 128
features, hidden = 4096, 200
kernel = 3


class Model(torch.nn.Module):
    def __init__(self, features, hidden):
        super().__init__()
        self.layer = torch.nn.Linear(features, hidden)

    def forward(self, x):
        return self.layer(x) * 1024


def get_inputs():
    return [torch.randn(batch_size, features)]


def get_init_inputs():
    return [features, hidden]
"""


def _shrink(suite: Path, out: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, TOOL, suite, out], capture_output=True, text=True, check=False)


def test_sizes_shrink_and_what_the_module_computes_does_not(tmp_path: Path) -> None:
    level = tmp_path / "suite" / "level1"
    level.mkdir(parents=True)
    (level / "1_Linear.py").write_text(TASK)
    done = _shrink(tmp_path / "suite", tmp_path / "small")
    assert done.returncode == 0, done.stderr
    task = load_task(tmp_path / "small" / "level1" / "1_Linear.py")
    assert task.graph.inputs[0].shape == (2, 64)
    assert task.graph.results[0].shape == (2, 32)
    text = (tmp_path / "small" / "level1" / "1_Linear.py").read_text()
    assert "* 1024" in text and "kernel = 3" in text


HEADS = TASK.replace("features, hidden = 4096, 200", "features, hidden = 240, 240").replace(
    "        super().__init__()", "        super().__init__()\n        assert features % 12 == 0"
)


def test_what_fits_in_proportion_only_shrinks_in_proportion(tmp_path: Path) -> None:
    suite = tmp_path / "suite"
    suite.mkdir()
    (suite / "heads.py").write_text(HEADS)  # 240 by steps is 32, which twelve does not divide, nor does it 30
    (suite / "broken.py").write_text(TASK.replace("return self.layer(x)", "return self.layer(x) @ x"))
    done = _shrink(suite, tmp_path / "small")
    assert done.returncode == 1, "one of them loads in no size"
    assert "broken.py: does not load in any size" in done.stdout and not (tmp_path / "small" / "broken.py").exists()
    assert load_task(tmp_path / "small" / "heads.py").graph.inputs[0].shape == (2, 60)


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "suite").mkdir()
    done = _shrink(tmp_path / "suite", tmp_path / "small")
    assert done.returncode != 0 and "no task files" in done.stderr
