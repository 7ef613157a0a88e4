"""What is written after `--arm` is what is compared, or a line says what is wrong with it."""

from __future__ import annotations

import pytest

from warpsmith.contest import Arm, arms_for, parse_arm
from warpsmith.errors import SettingsError
from warpsmith.settings import Settings, load_settings

URL = "openai@http://127.0.0.1:8000/v1?a=b:qwen3"


def settings(*models: str, agent: tuple[str, ...] = ()) -> Settings:
    return load_settings(models=models, agent_command=agent)


BOTH = settings("openai:gpt-5", URL, agent=("coder", "-p"))


@pytest.mark.parametrize(
    ("text", "arm"),
    [
        ("builtin", Arm("builtin", True, (), False)),
        ("model", Arm("model", False, ("openai:gpt-5", URL), False)),
        (URL, Arm(URL, False, (URL,), False)),
        ("agent", Arm("agent", False, (), True)),
        ("builtin + openai:gpt-5", Arm("builtin+openai:gpt-5", True, ("openai:gpt-5",), False)),
        ("builtin+model+agent", Arm("builtin+model+agent", True, ("openai:gpt-5", URL), True)),
        ("builtin -retrieval", Arm("builtin -retrieval", True, (), False, retrieval=False)),
        ("lean = builtin  -cross -retrieval", Arm("lean", True, (), False, retrieval=False, cross=False)),
        (f"other={URL}", Arm("other", False, (URL,), False)),
    ],
)
def test_an_arm_is_what_its_text_says(text: str, arm: Arm) -> None:
    assert parse_arm(text, BOTH) == arm


def test_the_text_of_an_arm_can_be_read_again() -> None:
    arm = parse_arm("x=builtin+model -retrieval -cross", BOTH)
    assert arm.spec == f"builtin+openai:gpt-5+{URL} -retrieval -cross"
    assert parse_arm(f"x={arm.spec}", BOTH) == arm


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("biultin", "'biultin' is no author; known are builtin, model, agent, openai:gpt-5"),
        ("builtin model", "'builtin model' is no author"),
        ("builtin -mutate", "'-mutate' is no switch; there are -retrieval and -cross"),
        ("builtin -cross model", "'model' is no switch"),
        ("-cross", "names no author"),
        ("lean=", "names no author"),
        ("builtin+", "'' is no author"),
        ("builtin+builtin", "names 'builtin' twice"),
        ("builtin -cross -cross", "names '-cross' twice"),
        ("model+openai:gpt-5", "names 'openai:gpt-5' twice"),
        ("openai:other", "'openai:other' is no author"),
    ],
)
def test_a_wrong_arm_is_refused_in_a_line(text: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_arm(text, BOTH)
    assert str(caught.value).startswith(f"arm {text!r}") and said in str(caught.value)


def test_who_is_not_configured_cannot_be_asked() -> None:
    with pytest.raises(SettingsError, match="asks models, and no model is configured: give --model"):
        parse_arm("builtin+model", settings())
    with pytest.raises(SettingsError, match="asks an agent, and agent_command names none"):
        parse_arm("agent", settings())


def test_the_usual_arms_ask_models_where_there_are_some() -> None:
    assert [arm.name for arm in arms_for((), settings())] == ["builtin", "builtin -retrieval", "builtin -cross"]
    assert [arm.name for arm in arms_for((), settings("openai:gpt-5"))] == [
        "builtin",
        "model",
        "builtin+model",
        "builtin+model -retrieval",
        "builtin+model -cross",
    ]


@pytest.mark.parametrize(
    ("specs", "said"),
    [
        (["builtin"], "two arms"),
        (["builtin", "other=builtin"], "'builtin' and 'other' are the same"),
        (["openai:gpt-5", "model"], "are the same: openai:gpt-5"),
        (["a=builtin", "a=builtin -cross"], "two arms are called 'a'"),
    ],
)
def test_arms_that_compare_nothing_are_refused(specs: list[str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        arms_for(specs, settings("openai:gpt-5"))


def test_an_arm_asks_its_own_authors_alone() -> None:
    alone, asking = (parse_arm(text, BOTH).settings(BOTH) for text in ("builtin", "openai:gpt-5+agent"))
    assert (alone.models, alone.agent_command) == ((), ())
    assert (asking.models, asking.agent_command) == (("openai:gpt-5",), ("coder", "-p"))
    assert asking.budget == BOTH.budget
