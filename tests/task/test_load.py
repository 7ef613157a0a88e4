"""Files and live modules become the graphs that their authors meant."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import pytest
import torch
import torch.utils.checkpoint
from torch import nn

from warpsmith.records import Ref
from warpsmith.task import draw, evaluate, load_task, task_from_module

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))


def ops(task) -> list[str]:
    return [node.op for node in task.graph.nodes]


def agree(task, module: nn.Module, *inputs: torch.Tensor) -> None:
    """Check the graph against the module on inputs other than those it was exported with."""
    arguments = {**task.state, **{spec.name: value for spec, value in zip(task.graph.inputs, inputs)}}
    got = evaluate(task.graph, arguments, "task")
    with torch.no_grad():
        due = module(*inputs)
    leaves = [leaf for leaf in torch.utils._pytree.tree_leaves(due) if leaf is not None]
    for spec, value in zip(task.graph.results, leaves):
        torch.testing.assert_close(got[spec.name], value, rtol=1e-5, atol=1e-6)
        assert got[spec.name].is_contiguous()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_load(example, path: Path) -> None:
    task = example(path)
    assert task.name == path.stem
    assert task.module_inputs
    assert set(task.state) == {spec.name for spec in task.graph.parameters + task.graph.buffers}
    assert sum(spec.numel for spec in task.graph.arguments) <= 300_000


def test_all_promised_examples_exist() -> None:
    promised = """gelu softmax rmsnorm layernorm batchnorm linear_gelu matmul conv2d_relu maxpool cumsum cross_entropy
    argmax residual_block"""
    assert {path.stem for path in EXAMPLES} == set(promised.split())


def test_composite_operators_stay_whole() -> None:
    folder = EXAMPLES[0].parent
    assert ops(load_task(folder / "softmax.py")) == ["aten.softmax.int"]
    assert ops(load_task(folder / "layernorm.py")) == ["aten.layer_norm.default"]
    assert ops(load_task(folder / "linear_gelu.py")) == [
        "aten.linear.default",
        "aten.gelu.default",
        "aten.linear.default",
    ]


def test_parameters_are_seeded_as_kernelbench_seeds_them(example) -> None:
    task = example(EXAMPLES[0].parent / "linear_gelu.py")
    torch.manual_seed(42)
    x = torch.randn(64, 96)
    torch.manual_seed(42)
    up = nn.Linear(96, 192)
    assert torch.equal(task.state["up_weight"], up.weight)
    assert torch.equal(task.examples["x"], x)


def test_loading_disturbs_neither_the_generator_nor_the_interpreter(write) -> None:
    write("FACTOR = 3.0\n", "sibling_of_the_model.py")
    path = write("""
        import torch
        from sibling_of_the_model import FACTOR
        class Model(torch.nn.Module):
            def forward(self, x):
                return x * FACTOR
        def get_inputs():
            return [torch.rand(5)]
    """)
    torch.manual_seed(7)
    due = torch.rand(3)
    torch.manual_seed(7)
    modules, search = set(sys.modules), list(sys.path)
    task = load_task(path)
    draw(task, "nominal", 3)
    assert torch.equal(torch.rand(3), due)
    assert sys.path == search
    new = set(sys.modules) - modules
    assert not {name for name in new if "sibling" in name or "warpsmith_source" in name}
    assert sorted(entry.name for entry in Path(path).parent.iterdir()) == ["model.py", "sibling_of_the_model.py"]


def test_annotations_and_dataclasses_in_the_file(write) -> None:
    path = write("""
        from __future__ import annotations
        from dataclasses import dataclass
        import torch
        @dataclass
        class Config:
            width: int = 4
        class Model(torch.nn.Module):
            def __init__(self, config: Config):
                super().__init__()
                self.linear = torch.nn.Linear(config.width, 2)
            def forward(self, x):
                return self.linear(x)
        def get_inputs():
            return [torch.rand(3, 4)]
        def get_init_inputs():
            return {"config": Config(4)}
    """)
    assert load_task(path).graph.results[0].shape == (3, 2)


def test_class_by_name_with_its_own_inputs(write) -> None:
    path = write("""
        import torch
        class First(torch.nn.Module):
            def forward(self, x):
                return x + 1
        class Second(torch.nn.Module):
            def forward(self, x):
                return x.relu()
        example_inputs = (torch.ones(2, 3),)
    """)
    task = load_task(f"{path}:Second")
    assert (task.name, ops(task), task.module_inputs) == ("model-Second", ["aten.relu.default"], False)


def test_inputs_as_keywords_in_any_order(write) -> None:
    path = write("""
        import torch
        class Model(torch.nn.Module):
            def forward(self, a, b, scale=2.0):
                return a - b * scale
        def get_inputs():
            return {"b": torch.rand(4), "scale": 3.0, "a": 10 + torch.rand(4)}
    """)
    task = load_task(path)
    assert [spec.name for spec in task.graph.inputs] == ["a", "b"]
    assert task.examples["a"].min() >= 10
    assert draw(task, "nominal", 5)["a"].min() >= 10
    assert task.graph.nodes[0].args == (Ref("b"), 3.0)


def test_numbers_among_the_inputs_are_part_of_the_function(write) -> None:
    path = write("""
        import torch
        class Model(torch.nn.Module):
            def forward(self, x, s):
                return x * s
        def get_inputs():
            return [torch.rand(4), 3.14]
    """)
    task = load_task(path)
    assert [spec.name for spec in task.graph.inputs] == ["x"]
    torch.testing.assert_close(evaluate(task.graph, {"x": torch.ones(4)}, "task")["out"], torch.full((4,), 3.14))


def test_lists_of_tensors_as_inputs() -> None:
    class Joined(nn.Module):
        def forward(self, parts: list[torch.Tensor]) -> torch.Tensor:
            return torch.cat(parts, dim=1)

    task = task_from_module(Joined(), [[torch.rand(2, 3), torch.rand(2, 4)]])
    assert [spec.name for spec in task.graph.inputs] == ["parts_0", "parts_1"]
    assert task.graph.results[0].shape == (2, 7)


class Several(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None, torch.Tensor]:
        values, indices = x.max(dim=1)
        return values, None, indices


class Keyed(nn.Module):
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"total": x.sum(), "twice": x * 2}


def test_several_outputs() -> None:
    x = torch.rand(3, 5)
    task = task_from_module(Several(), x)
    assert [(spec.name, spec.dtype) for spec in task.graph.results] == [("out0", "float32"), ("out1", "int64")]
    assert [ref.index for _, ref in task.graph.outputs] == [0, 1]
    agree(task, Several(), x + torch.rand(3, 5))


def test_outputs_by_key_and_scalars() -> None:
    task = task_from_module(Keyed(), torch.rand(3, 5))
    assert [(spec.name, spec.shape) for spec in task.graph.results] == [("total", ()), ("twice", (3, 5))]
    agree(task, Keyed(), torch.rand(3, 5))


def test_output_that_is_an_input() -> None:
    class Same(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x, x.t()

    x = torch.rand(3, 5)
    task = task_from_module(Same(), [x, x])
    agree(task, Same(), torch.rand(3, 5), x)
    got = evaluate(task.graph, {"x": x, "y": x}, "task")
    assert got["out0"].data_ptr() != x.data_ptr()


def test_training_batch_norm_gives_its_buffers_back() -> None:
    module = nn.BatchNorm2d(3)
    before = {name: value.clone() for name, value in module.named_buffers()}
    x = 5 + 3 * torch.randn(4, 3, 6, 6)
    task = task_from_module(module, x)
    assert all(torch.equal(value, before[name]) for name, value in module.named_buffers())
    assert task.graph.updates == (
        ("running_mean", "new_running_mean"),
        ("running_var", "new_running_var"),
        ("num_batches_tracked", "new_num_batches_tracked"),
    )
    got = evaluate(task.graph, {**task.state, "input": x}, "task")
    module(x)
    torch.testing.assert_close(got["new_running_mean"], module.running_mean)
    torch.testing.assert_close(got["new_running_var"], module.running_var)
    assert got["new_num_batches_tracked"].tolist() == 1
    assert task.graph.nodes[-1].outputs[1:3] == (None, None)


def test_batch_norm_in_eval_mode_updates_nothing() -> None:
    task = task_from_module(nn.BatchNorm2d(3).eval(), torch.randn(4, 3, 6, 6))
    assert task.graph.updates == ()
    assert {spec.name for spec in task.graph.buffers} == {"running_mean", "running_var"}


def test_input_changed_in_place_is_an_update() -> None:
    class InPlace(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x.add_(1.0)
            return x * 2

    x = torch.zeros(3)
    task = task_from_module(InPlace(), x)
    assert x.tolist() == [0, 0, 0]
    assert task.graph.updates == (("x", "new_x"),)
    assert evaluate(task.graph, {"x": x}, "task")["new_x"].tolist() == [1, 1, 1]


def test_input_and_parameter_of_one_name() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.x = nn.Parameter(torch.full((3,), 5.0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x.mul_(2.0)
            return x + self.x

    task = task_from_module(Both(), torch.ones(3))
    assert task.graph.updates == (("x", "new_x"),)
    got = evaluate(task.graph, {"x": torch.ones(3), **task.state}, "task")
    assert (got["new_x"].tolist(), got["out"].tolist()) == ([2.0] * 3, [7.0] * 3)


@pytest.mark.parametrize(
    ("module", "op"),
    [
        (nn.GRU(6, 5, 2, batch_first=True), "aten.gru.input"),
        (nn.LSTM(6, 5, 2, batch_first=True, bidirectional=True), "aten.lstm.input"),
        (nn.RNN(6, 5), "aten.rnn_tanh.input"),
    ],
    ids=["gru", "lstm", "rnn"],
)
def test_recurrent_layers_stay_whole(module: nn.Module, op: str) -> None:
    x = torch.randn(2, 7, 6)
    task = task_from_module(module, x)
    assert ops(task).count(op) == 1
    assert len(ops(task)) <= 3
    agree(task, module, torch.randn(2, 7, 6))


class Views(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.cat([x[:, 1:4], x[:, ::2]], dim=1)
        y = nn.functional.pad(y, (1, 2), value=0.5)
        y = y.transpose(1, 2).reshape(x.shape[0], -1)
        y = y.permute(1, 0).contiguous().view(-1)
        return y.unsqueeze(0).expand(3, -1).flip(1)[1:]


def test_views_slices_padding_and_concatenation() -> None:
    task = task_from_module(Views(), torch.rand(2, 6, 5))
    assert "aten.clone.default" not in ops(task)
    assert "aten._unsafe_view.default" not in ops(task)
    agree(task, Views(), torch.rand(2, 6, 5))


class Written(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.zeros(4, 3, dtype=torch.float64)
        y[1] = x.sum(0)
        y[2:] = 2.0
        return y.relu_()


def test_writing_into_slices_becomes_functional() -> None:
    task = task_from_module(Written(), torch.rand(2, 3))
    assert not any(op.split(".")[1].endswith("_") or op.startswith("aten.copy") for op in ops(task))
    agree(task, Written(), torch.randn(2, 3))


def test_dead_code_and_unused_state_are_dropped() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor, ignored: torch.Tensor) -> torch.Tensor:
            torch.rand(3)
            self.unused(x)
            return self.used(x)

    task = task_from_module(Half(), [torch.rand(2, 4), torch.rand(1)])
    assert [spec.name for spec in task.graph.arguments] == ["x", "ignored", "used_weight", "used_bias"]
    assert ops(task) == ["aten.linear.default"]


def test_names_are_identifiers_in_python_and_in_cuda() -> None:
    class Clash(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.x = nn.Parameter(torch.rand(4))
            self.layers = nn.Sequential(nn.Linear(4, 4))
            self.register_buffer("template", torch.rand(4))

        def forward(self, x: torch.Tensor, float: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
            return self.layers(x) * self.x + float.exp() + self.template + out

    task = task_from_module(Clash(), [torch.rand(4)] * 3)
    assert [spec.name for spec in task.graph.arguments] == [
        "x",
        "float_1",
        "out",
        "x_1",
        "layers_0_weight",
        "layers_0_bias",
        "template_1",
    ]
    assert task.graph.results[0].name == "out_1"


def test_lifted_constants_carry_their_values() -> None:
    class Table(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * torch.tensor([1.0, 2.0, 4.0])

    task = task_from_module(Table(), torch.rand(2, 3))
    (constant,) = task.graph.constants
    assert task.state[constant.name].tolist() == [1, 2, 4]


def test_factories_state_their_dtype() -> None:
    class Factory(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ torch.ones(3, 2) + torch.arange(2)

    task = task_from_module(Factory(), torch.rand(2, 3))
    made = {
        node.op: dict(node.kwargs) for node in task.graph.nodes if not node.args or not isinstance(node.args[0], Ref)
    }
    assert {op: kwargs["dtype"].name for op, kwargs in made.items()} == {
        "aten.ones.default": "float32",
        "aten.arange.default": "int64",
    }


def test_quiet_dropout_and_attention_are_accepted() -> None:
    class Quiet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.0)
            self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.drop(self.layer(x))

    module = Quiet()
    task = task_from_module(module, torch.rand(2, 3, 8))
    assert "aten.scaled_dot_product_attention.default" in ops(task)
    agree(task, module, torch.rand(2, 3, 8))


def test_the_module_stays_in_its_mode() -> None:
    assert ops(task_from_module(nn.Sequential(nn.Dropout(0.5), nn.ReLU()).eval(), torch.rand(3))) == [
        "aten.relu.default"
    ]
    assert ops(task_from_module(nn.Sequential(nn.Dropout(0.5), nn.ReLU()), torch.rand(3))) == [
        "aten.mul.Tensor",
        "aten.mul.Tensor",
        "aten.relu.default",
    ]


def test_contexts_inside_forward() -> None:
    class Contexts(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                y = x * 2
            with torch.autocast("cpu", dtype=torch.bfloat16):
                z = y @ y
            return torch.utils.checkpoint.checkpoint(torch.relu, z, use_reentrant=False).float()

    task = task_from_module(Contexts(), torch.rand(4, 4))
    assert ops(task).count("aten._to_copy.default") >= 2
    agree(task, Contexts(), torch.rand(4, 4))


def test_state_held_as_plain_attributes_is_a_constant() -> None:
    class Started(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(4, 5, 2, batch_first=True)
            self.h0, self.c0 = torch.randn(2, 3, 5), torch.randn(2, 3, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.h0, self.c0 = self.h0.to(x.device), self.c0.to(x.device)
            return self.lstm(x, (self.h0, self.c0))[0][:, -1]

    module = Started()
    task = task_from_module(module, torch.rand(3, 7, 4))
    assert [spec.name for spec in task.graph.constants] == ["h0", "c0"]
    agree(task, module, torch.rand(3, 7, 4))


def test_parametrized_and_tied_weights() -> None:
    module = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), nn.Linear(4, 4), nn.Linear(4, 4))
    module[2].weight = module[1].weight
    task = task_from_module(module, torch.rand(2, 4))
    assert sum(spec.name.endswith("weight") for spec in task.graph.parameters) == 1
    agree(task, module, torch.rand(2, 4))


def test_inputs_that_are_strided_or_need_gradients() -> None:
    module = nn.Linear(4, 3)
    x = torch.rand(4, 2, requires_grad=True).t()
    task = task_from_module(module, x)
    assert task.examples["input"].is_contiguous()
    assert not task.examples["input"].requires_grad
    agree(task, module, x)


def test_half_precision() -> None:
    module = nn.Linear(4, 3).to(torch.bfloat16)
    x = torch.rand(2, 4, dtype=torch.bfloat16)
    task = task_from_module(module, x)
    assert task.graph.results[0].dtype == "bfloat16"
    agree(task, module, x)


def test_a_task_can_be_sent_to_another_process() -> None:
    task = load_task(EXAMPLES[0].parent / "batchnorm.py")
    again = pickle.loads(pickle.dumps(task))
    assert again.key == task.key
    assert all(torch.equal(again.state[name], task.state[name]) for name in task.state)


def test_the_key_ignores_values_but_not_the_function() -> None:
    first, second = (task_from_module(nn.Linear(4, 3), torch.rand(2, 4)) for _ in range(2))
    assert first.key == second.key
    assert first.key != task_from_module(nn.Linear(4, 3, bias=False), torch.rand(2, 4)).key
    assert first.key != task_from_module(nn.Linear(4, 3), torch.rand(5, 4)).key
