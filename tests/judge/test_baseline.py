"""What a candidate is compared with must be the user's own module, timed as fairly as the candidate is."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.samples import TASK
from warpsmith.errors import MachineError, SettingsError, TaskError
from warpsmith.judge.baseline import BaselineCache, BaselineKey, Baselines
from warpsmith.judge.baseline.baselines import names_of
from warpsmith.judge.baseline.forms import Flush, Plain, calls_of
from warpsmith.judge.baseline.parcel import read_parcel, write_parcel
from warpsmith.judge.baseline.process import Bench, sentence
from warpsmith.judge.baseline.workload import Set, make_sets, open_source, sets_for
from warpsmith.records import MODES, Baseline, GpuState, Task, Timing
from warpsmith.task import load_task, task_from_module
from warpsmith.task.usercode import Blame

EXAMPLES = Path(__file__).parents[2] / "examples"
GELU = EXAMPLES / "gelu.py"


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as opened, torch.no_grad(), torch.random.fork_rng():
        yield opened


def sets_of(task: Task, folder: Path, stack: contextlib.ExitStack, count: int = 3) -> list[Set]:
    """Sets as the baseline's process makes them."""
    write_parcel(task, folder / "task.pt")
    parcel = read_parcel(folder / "task.pt")
    return make_sets(parcel, open_source(parcel, stack), "cpu", (count - 1) * parcel.set_bytes)


def call(one: Set) -> object:
    return one.target(*one.args, **one.kwargs)


def tensors(one: Set) -> list[torch.Tensor]:
    """Everything that a call reads."""
    own = list(one.target.state_dict().values()) if isinstance(one.target, torch.nn.Module) else []
    return own + [
        leaf for leaf in torch.utils._pytree.tree_leaves((one.args, one.kwargs)) if isinstance(leaf, torch.Tensor)
    ]


def file_task(folder: Path, text: str) -> Task:
    path = folder / "mine.py"
    path.write_text("import torch\nfrom torch import nn\n" + text, encoding="utf-8")
    return load_task(path)


class TestSets:
    @pytest.mark.parametrize("name", ["cross_entropy", "maxpool", "residual_block"])
    def test_an_example_runs_as_its_author_wrote_it(
        self, name: str, tmp_path: Path, stack: contextlib.ExitStack
    ) -> None:
        task = load_task(EXAMPLES / f"{name}.py")
        for one in sets_of(task, tmp_path, stack, 2):
            result = call(one)
            assert isinstance(result, torch.Tensor)
            due = task.graph.results[0]
            assert (tuple(result.shape), str(result.dtype)) == (due.shape, f"torch.{due.dtype}")

    def test_no_two_calls_share_memory_or_inputs(self, tmp_path: Path, stack: contextlib.ExitStack) -> None:
        """Else the second call of a series finds its data in the cache, which a candidate does not."""
        sets = sets_of(load_task(EXAMPLES / "batchnorm.py"), tmp_path, stack, 4)
        assert len(sets) == 4
        places = [leaf.data_ptr() for one in sets for leaf in tensors(one)]
        assert len(places) == len(set(places))
        assert not torch.equal(sets[0].args[0], sets[1].args[0])

    def test_the_module_has_the_parameters_of_the_task(self, tmp_path: Path, stack: contextlib.ExitStack) -> None:
        task = load_task(EXAMPLES / "linear_gelu.py")
        module = sets_of(task, tmp_path, stack)[1].target
        assert isinstance(module, torch.nn.Module)
        values = {value.shape: value for value in task.state.values()}
        assert all(torch.equal(values[value.shape], value) for value in module.state_dict().values())

    def test_a_module_stays_in_the_mode_that_its_author_left_it_in(
        self, tmp_path: Path, stack: contextlib.ExitStack
    ) -> None:
        module = sets_of(load_task(EXAMPLES / "batchnorm.py"), tmp_path, stack)[0].target
        assert isinstance(module, torch.nn.Module) and module.training
        before = {name: value.clone() for name, value in module.named_buffers()}
        module(torch.ones(8, 24, 28, 28))
        assert any(not torch.equal(before[name], value) for name, value in module.named_buffers())

    def test_a_live_module_runs_in_its_functional_form_on_its_own_state(
        self, tmp_path: Path, stack: contextlib.ExitStack
    ) -> None:
        module, x = torch.nn.Linear(8, 3), torch.randn(5, 8)
        sets = sets_of(task_from_module(module, x), tmp_path, stack)
        assert len({leaf.data_ptr() for one in sets for leaf in tensors(one)}) == 9
        result = call(sets[0])
        assert isinstance(result, torch.Tensor)
        torch.testing.assert_close(result, module(x))
        assert set(tensors(sets[1])[0].flatten().tolist()) <= set(x.flatten().tolist()), "resampled from the example"

    @pytest.mark.parametrize("drawn", ["def get_inputs():\n    return [X]\n", "example_inputs = [X]\n"])
    def test_a_module_draws_its_own_masks_also_while_it_is_timed(
        self, drawn: str, tmp_path: Path, stack: contextlib.ExitStack
    ) -> None:
        """Given the task's masks it could not be called, and without drawing them it would be timed too fast."""
        text = "class Model(nn.Module):\n    def forward(self, x):\n        return nn.functional.dropout(x, 0.5)\n"
        task = file_task(tmp_path, f"{text}X = torch.ones(64)\n{drawn}")
        one, other = sets_of(task, tmp_path, stack, 2)
        assert read_parcel(tmp_path / "task.pt").set_bytes == 64 * 4 + 64 + 64 * 4
        assert [leaf.shape for leaf in tensors(one)] == [(64,)]
        first, second = call(one), call(other)
        assert isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor)
        assert set(first.tolist()) == {0.0, 2.0} and not torch.equal(first, second)

    def test_the_functional_form_is_given_masks(self, tmp_path: Path, stack: contextlib.ExitStack) -> None:
        task = task_from_module(nn.Dropout(0.5), torch.ones(64))
        one, other = (call(each) for each in sets_of(task, tmp_path, stack, 2))
        assert isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)
        assert torch.equal(one, 2.0 * task.examples["mask"]) and not torch.equal(one, other)

    def test_inputs_that_a_file_gives_as_a_value_are_resampled(
        self, tmp_path: Path, stack: contextlib.ExitStack
    ) -> None:
        text = (
            "class Model(nn.Module):\n    def forward(self, xs, scale, index):\n        return xs[0][index] * scale + xs[1]\n"
            "example_inputs = {'index': torch.tensor([2, 0, 1]), 'scale': 2.0, 'xs': [torch.randn(3, 4), torch.randn(3, 4)]}\n"
        )
        task = file_task(tmp_path, text)
        first, second, _ = sets_of(task, tmp_path, stack)
        xs, scale, index = first.args
        assert scale == 2.0 and torch.equal(index, task.examples["index"])
        assert torch.equal(xs[0], task.examples["xs_0"]) and torch.equal(xs[1], task.examples["xs_1"])
        assert not torch.equal(second.args[0][0], xs[0]) and set(second.args[2].tolist()) <= {0, 1, 2}
        result = call(second)
        assert isinstance(result, torch.Tensor) and result.shape == (3, 4)

    def test_a_file_may_import_what_lies_beside_it_also_when_it_runs(
        self, tmp_path: Path, stack: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "beside_it.py").write_text("def twice(x):\n    return x + x\n", encoding="utf-8")
        text = (
            "class Model(nn.Module):\n    def forward(self, x):\n        from beside_it import twice\n        return twice(x)\n"
            "def get_inputs():\n    return [torch.ones(2)]\n"
        )
        monkeypatch.chdir(tmp_path)
        (tmp_path / "mine.py").write_text("import torch\nfrom torch import nn\n" + text, encoding="utf-8")
        write_parcel(load_task("mine.py"), tmp_path / "task.pt")
        monkeypatch.chdir("/")
        parcel = read_parcel(tmp_path / "task.pt")
        result = call(open_source(parcel, stack).make(0, "cpu"))
        assert isinstance(result, torch.Tensor) and result.tolist() == [2.0, 2.0]

    def test_inputs_drawn_with_a_generator_of_the_cpu_are_moved(
        self, tmp_path: Path, stack: contextlib.ExitStack
    ) -> None:
        """On a GPU such a file would fail under a default device; `meta` fails in the same way here."""
        text = (
            "class Model(nn.Module):\n    def forward(self, x):\n        return x.neg()\n"
            "def get_inputs():\n    return [torch.from_numpy(torch.ones(2, 3).numpy())]\n"
        )
        write_parcel(file_task(tmp_path, text), tmp_path / "task.pt")
        parcel = read_parcel(tmp_path / "task.pt")
        made = open_source(parcel, stack).make(0, "meta")
        assert made.args[0].device.type == "meta" and made.args[0].shape == (2, 3)

    def test_plain_tensors_of_a_module_move_with_it(self, tmp_path: Path, stack: contextlib.ExitStack) -> None:
        text = (
            "class Model(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
            "        self.masks = {'a': [torch.ones(3)]}\n        self.inner = nn.ReLU()\n        self.inner.shift = torch.ones(3)\n"
            "    def forward(self, x):\n        return self.inner(x) * self.masks['a'][0] + self.inner.shift\n"
            "def get_inputs():\n    return [torch.randn(2, 3)]\n"
        )
        write_parcel(file_task(tmp_path, text), tmp_path / "task.pt")
        parcel = read_parcel(tmp_path / "task.pt")
        result = call(open_source(parcel, stack).make(0, "meta"))
        assert isinstance(result, torch.Tensor) and result.device.type == "meta"

    def test_inputs_of_another_shape_than_the_task_has_are_refused(
        self, tmp_path: Path, stack: contextlib.ExitStack
    ) -> None:
        task = replace(load_task(GELU), source=GELU.read_text(encoding="utf-8").replace("(256, 1024)", "(128, 1024)"))
        with pytest.raises(TaskError, match="other shapes"):
            sets_of(task, tmp_path, stack)

    @pytest.mark.parametrize(
        ("each", "rotate", "free", "count"),
        [
            (100, 1000, 10**6, 11),
            (10**6, 1000, 10**8, 2),
            (1, 10**6, 10**9, 256),
            (10**6, 10**7, 10**6, 1),
            (10**6, 10**7, 10**7, 4),
            (0, 10**6, 10**6, 256),
        ],
    )
    def test_sets_exceed_the_caches_but_not_the_memory(self, each: int, rotate: int, free: int, count: int) -> None:
        assert sets_for(each, rotate, free) == count


class TestForms:
    def test_a_series_makes_each_call_once_and_says_what_one_took(self) -> None:
        made: list[int] = []
        calls = [lambda number=number: made.append(number) for number in range(5)]
        form = Plain(calls, "cpu")
        made.clear()
        assert form.series(Flush(1024, "cpu")) > 0.0
        assert made == [0, 1, 2, 3, 4]

    def test_slow_calls_make_a_short_series(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("warpsmith.judge.baseline.forms.SERIES_SECONDS", 0.0)
        made: list[int] = []
        form = Plain([lambda: made.append(0)] * 5, "cpu")
        made.clear()
        form.series(Flush(0, "cpu"))
        assert made == [0]

    def test_copies_share_the_compiled_code(
        self, tmp_path: Path, stack: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Past eight recompilations PyTorch gives up without a word, and the baseline would be eager under another name."""
        graphs = count_compilations(monkeypatch)
        sets = sets_of(load_task(EXAMPLES / "residual_block.py"), tmp_path, stack, 12)
        calls = calls_of("compile", sets)
        for each in calls:
            each()
        assert len(graphs) == 1
        assert len({id(each.func) for each in calls}) == 12

    def test_code_that_is_for_one_copy_only_is_called_for_all(
        self, tmp_path: Path, stack: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        text = (
            "class Model(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.own = 0\n"
            "    def __deepcopy__(self, memo):\n        made = Model()\n        made.own = id(made)\n        return made\n"
            "    def forward(self, x):\n        return x.neg() if self.own % 2 else x.neg() + 0 * self.own\n"
            "def get_inputs():\n    return [torch.randn(2, 3)]\n"
        )
        graphs = count_compilations(monkeypatch)
        sets = sets_of(file_task(tmp_path, text), tmp_path, stack, 12)
        calls = calls_of("compile", sets)
        compiled = len(graphs)
        for each in calls:
            each()
        assert len(graphs) == compiled
        assert len({id(each.func) for each in calls}) == 1

    def test_a_module_that_raises_is_a_problem_in_a_sentence(self, tmp_path: Path, stack: contextlib.ExitStack) -> None:
        source = GELU.read_text(encoding="utf-8").replace("return F.gelu(x)", "raise ValueError('alas')")
        write_parcel(replace(load_task(GELU), source=source), tmp_path / "task.pt")
        bench = Bench(read_parcel(tmp_path / "task.pt"), "cpu", 0, stack)
        with pytest.raises(TaskError) as caught:
            bench.do_prepare({"mode": "eager", "graph": False})
        line = 1 + source[: source.index("raise ValueError")].count("\n")
        assert sentence(caught.value) == f"{GELU}:{line}: the module raised ValueError: alas"

    def test_a_failed_capture_names_what_the_module_did_and_not_how_the_capture_ended(self) -> None:
        @contextlib.contextmanager
        def capture() -> Iterator[None]:
            try:
                yield
            finally:
                raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

        outer, inner = Blame("the capture of a CUDA graph", None), Blame("the module, captured in a CUDA graph,", None)
        with pytest.raises(TaskError) as caught, outer, capture(), inner:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        assert sentence(caught.value).endswith("operation not permitted when stream is capturing")

    def test_the_baseline_computes_in_the_precision_of_the_task(
        self, tmp_path: Path, stack: contextlib.ExitStack
    ) -> None:
        """A file that allows itself TF32 would be faster than any honest float32 program."""
        source = "import torch\ntorch.backends.cuda.matmul.allow_tf32 = True\n" + GELU.read_text(encoding="utf-8")
        before = torch.backends.cuda.matmul.allow_tf32
        write_parcel(replace(load_task(GELU), source=source), tmp_path / "task.pt")
        try:
            Bench(read_parcel(tmp_path / "task.pt"), "cpu", 0, stack)
            assert torch.backends.cuda.matmul.allow_tf32 is False
        finally:
            torch.backends.cuda.matmul.allow_tf32 = before

    def test_a_compiler_that_fails_is_a_problem_in_a_sentence(
        self, tmp_path: Path, stack: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def backend(*_: object) -> None:
            raise RuntimeError("no compiler here\nand a long trace")

        compile_with(monkeypatch, backend)
        write_parcel(load_task(GELU), tmp_path / "task.pt")
        bench = Bench(read_parcel(tmp_path / "task.pt"), "cpu", 0, stack)
        with pytest.raises(TaskError) as caught:
            bench.do_prepare({"mode": "max-autotune", "graph": False})
        assert "torch.compile raised" in sentence(caught.value)
        assert sentence(caught.value).endswith("RuntimeError: no compiler here")
        assert bench.do_prepare({"mode": "eager", "graph": False}) == {"ready": True}


def compile_with(monkeypatch: pytest.MonkeyPatch, backend: object) -> None:
    """Let torch.compile use another backend than the one that needs a C++ compiler."""
    original = torch.compile
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", lambda target, mode: original(target, backend=backend))


def count_compilations(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    graphs: list[object] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> object:
        graphs.append(graph)
        return graph.forward

    compile_with(monkeypatch, backend)
    return graphs


@pytest.fixture(scope="module")
def gelu() -> Iterator[Baselines]:
    with Baselines(load_task(GELU), "cpu", rotate_bytes=5 << 20, seconds=60.0) as found:
        yield found
        pid = found.pid
    assert found.pid is None
    if pid is not None:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


class TestProcess:
    def test_eager_pytorch_is_measured(self, gelu: Baselines) -> None:
        found = gelu.measure("eager", False, series=4)
        assert found.timing is not None and found.problem == ""
        assert len(found.timing.samples) == 4
        assert (found.timing.source, found.timing.device, found.name) == ("measured", "cpu", "eager")
        assert gelu.facts.sets == 3, "sets of 2 MiB that together exceed 5 MiB"
        assert gelu.facts.torch == torch.__version__

    def test_a_graph_needs_a_gpu_and_the_process_is_not_lost_over_it(self, gelu: Baselines) -> None:
        assert gelu.prepare("eager", False) == ""
        pid = gelu.pid
        assert gelu.prepare("eager", True) == "CUDA graphs need a GPU"
        assert gelu.measure("compile", True).problem == "CUDA graphs need a GPU"
        assert gelu.pid == pid is not None

    def test_a_process_that_dies_is_reported_and_replaced(self, gelu: Baselines) -> None:
        gelu.prepare("eager", False)
        pid = gelu.pid
        assert pid is not None
        os.killpg(pid, signal.SIGKILL)
        with pytest.raises(MachineError, match="SIGKILL"):
            gelu.series("eager", False)
        assert gelu.series("eager", False) > 0.0
        assert gelu.pid not in (None, pid)

    def test_a_form_that_finds_no_memory_beside_others_is_tried_alone(
        self, gelu: Baselines, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        full = {"problem": "torch.compile raised OutOfMemoryError: CUDA out of memory."}
        answers: list[dict[str, object]] = []
        monkeypatch.setattr(gelu, "_ask", lambda *_: answers.pop(0))
        monkeypatch.setattr(gelu, "_prepared", {("eager", False)})
        answers += [full, {"ready": True}]
        assert gelu.prepare("compile", False) == "" and not answers
        monkeypatch.setattr(gelu, "_prepared", set())
        answers += [full, {"ready": True}]
        assert gelu.prepare("compile", False) == full["problem"] and len(answers) == 1

    def test_what_nobody_can_measure_is_refused(self, gelu: Baselines) -> None:
        with pytest.raises(ValueError, match="unknown mode"):
            gelu.prepare("fast", False)  # type: ignore[arg-type]
        with pytest.raises(ValueError):
            gelu.measure("eager", False, series=0)
        with pytest.raises(ValueError):
            Baselines(load_task(GELU), "cpu", rotate_bytes=-1, seconds=1.0)

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            ("import os; print('alas'); os._exit(7)", "ended with code 7: alas"),
            ("import time; time.sleep(600)", "too slow"),
        ],
    )
    def test_a_module_that_cannot_be_run_is_a_problem_in_a_sentence(self, body: str, words: str) -> None:
        source = GELU.read_text(encoding="utf-8").replace("return F.gelu(x)", body)
        seconds = 0.5 if words == "too slow" else 60.0
        with Baselines(replace(load_task(GELU), source=source), "cpu", rotate_bytes=0, seconds=seconds) as found:
            measured = found.measure("eager", False)
            assert measured.timing is None and words in measured.problem
            assert "\n" not in measured.problem
            assert found.pid is None, "what failed is not used again"

    def test_a_module_that_cannot_be_built_has_no_baseline_at_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        source = GELU.read_text(encoding="utf-8").replace(
            "get_init_inputs() -> list[object]:\n    return []", "get_init_inputs():\n    return [1]"
        )
        with Baselines(replace(load_task(GELU), source=source), "cpu", rotate_bytes=0, seconds=60.0) as found:
            with pytest.raises(MachineError, match="the constructor of Model raised TypeError"):
                _ = found.facts
            tried: list[object] = []
            monkeypatch.setattr(
                found,
                "measure",
                lambda mode, graph, series: tried.append((mode, graph)) or Baseline(mode, graph, None, "no"),
            )
            assert [each.name for each in found.all()] == list(names_of(MODES))
            assert tried == [(mode, False) for mode in MODES], "a mode that cannot be called is not tried as a graph"


def timing(seconds: float) -> Timing:
    return Timing(
        (seconds,),
        seconds,
        (seconds, seconds),
        "measured",
        "NVIDIA H200",
        (1980, 3201),
        (GpuState(1980, 3201, 41, 220.5, ("power cap",)),),
        (("events", seconds),),
    )


SIX = (
    Baseline("eager", False, timing(5e-6)),
    Baseline("eager", True, timing(3e-6)),
    Baseline("compile", False, timing(4e-6)),
    Baseline("compile", True, timing(2e-6)),
    Baseline("max-autotune", False, None, "torch.compile raised InductorError: no"),
    Baseline("max-autotune", True, None, "torch.compile raised InductorError: no"),
)
KEY = BaselineKey(TASK.key, "NVIDIA H200", "580.65", "2.11.0", "13.0", names_of(MODES), 1 << 28)


class TestChoice:
    def test_the_headline_is_against_the_fastest(self) -> None:
        assert Baselines.best(SIX) == SIX[3]
        assert Baselines.best(SIX[4:]) is None


class TestCache:
    def test_what_was_measured_comes_back(self, tmp_path: Path) -> None:
        cache = BaselineCache(tmp_path / "new" / "folder")
        assert cache.load(KEY) is None
        cache.store(KEY, SIX)
        assert cache.load(KEY) == SIX
        assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == [f"{KEY.name}.json"]

    @pytest.mark.parametrize(
        "change",
        [{"driver": "581"}, {"torch": "2.12.0"}, {"cuda": "13.1"}, {"device": "NVIDIA H100"}, {"rotate_bytes": 1}],
    )
    def test_another_machine_or_version_measures_for_itself(self, change: dict[str, str], tmp_path: Path) -> None:
        cache = BaselineCache(tmp_path)
        cache.store(KEY, SIX)
        assert cache.load(replace(KEY, **change)) is None

    @pytest.mark.parametrize("damage", ["short", "empty", "list", "negative", "key", "estimated", "fewer", "state"])
    def test_a_damaged_file_reads_as_missing(self, damage: str, tmp_path: Path) -> None:
        cache = BaselineCache(tmp_path)
        cache.store(KEY, SIX)
        path = cache.path(KEY)
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
        if damage == "negative":
            content["baselines"][0]["timing"]["median"] = -1.0
        elif damage == "key":
            content["key"]["driver"] = "581"
        elif damage == "estimated":
            content["baselines"][0]["timing"]["source"] = "estimated"
        elif damage == "fewer":
            content["baselines"].pop()
        elif damage == "state":
            content["baselines"][0]["timing"]["states"][0]["colour"] = "red"
        written = {"short": text[: len(text) // 2], "empty": "", "list": "[]"}.get(damage, json.dumps(content))
        path.write_text(written, encoding="utf-8")
        assert cache.load(KEY) is None

    def test_only_what_the_key_names_is_kept(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError):
            BaselineCache(tmp_path).store(KEY, SIX[:2])

    def test_a_folder_that_cannot_be_made_is_said_at_once(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("", encoding="utf-8")
        with pytest.raises(SettingsError, match="cannot be kept"):
            BaselineCache(tmp_path / "file" / "below")
