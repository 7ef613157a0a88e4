"""What README and documentation tell people to do can be done: commands, options, targets, paths, links, Python."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tools import reference

from warpsmith.device.catalog import gpu
from warpsmith.device.simulator import Simulator
from warpsmith.device.simulator.estimate import UNCERTAINTY
from warpsmith.judge import Judge, judge_folder, render_time
from warpsmith.program import Builder
from warpsmith.task import load_task

ROOT = Path(__file__).parents[2]
PAGES = (*(ROOT / name for name in ("README.md", "AGENTS.md", "CHANGELOG.md")), *sorted((ROOT / "docs").glob("*.md")))
GENERATED = {ROOT / "docs" / name for name in reference.PAGES}
MADE = ("warpsmith-out", "site", ".venv", "benchmarks/results", "build-cache")
"""What commands make, so that it need not be there."""

HOSTS = re.compile(r"(?<!\w)/(?:home|root|work|Users)/|" + "py" + r"pi\.|index-url|localhost")


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands() -> Iterator[tuple[Path, list[str]]]:
    """Every line of every block of shell, without its comment."""
    for page in PAGES:
        for block in blocks(page, "sh"):
            for line in block.splitlines():
                if words := shlex.split(line, comments=True):
                    yield page, words
        for inline in re.findall(r"`((?:warpsmith|make) [^`\n]+)`", page.read_text(encoding="utf-8")):
            yield page, shlex.split(inline)


COMMANDS = [pytest.param(words, id=f"{named(page)}: {' '.join(words)}") for page, words in commands()]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def complaint(words: list[str]) -> str | None:
    """Say what is wrong with a command of `make` or `warpsmith`, or None."""
    program = Path(words[0]).name
    if program == "make":
        unknown = [word for word in words[1:] if "=" not in word and word not in TARGETS]
        return f"no target {unknown}" if unknown else None
    if program != "warpsmith":
        return f"{program} is no command of this project"
    verbs = {tuple(name.split()[1:]): reference.parameters(verb) for name, verb in reference.verbs().items()}
    verb = next((verb for verb in verbs if tuple(words[1 : 1 + len(verb)]) == verb), None)
    if verb is None:
        return f"no verb in {words}"
    labels = {label for parameter in verbs[verb] for label in parameter.label.split("/")}
    unknown = [word for word in words if word.startswith("--") and word not in labels]
    if unknown:
        return f"no options {unknown}"
    missing = [word for word in words if word.startswith("examples/") and not (ROOT / word).is_file()]
    return f"no files {missing}" if missing else None


@pytest.mark.parametrize("words", COMMANDS)
def test_command_exists(words: list[str]) -> None:
    assert complaint(words) is None


def test_a_wrong_command_would_be_noticed() -> None:
    assert complaint(["make", "demo"]) is None
    assert complaint(["make", "everything"]) is not None
    assert complaint(["warpsmith", "optimise", "x.py"]) is not None
    assert complaint(["warpsmith", "optimize", "x.py", "--fast"]) is not None
    assert complaint(["warpsmith", "tell", "questions", "--no-judge"]) is None
    assert complaint(["warpsmith", "archive", "show", "1dbec5ac"]) is None
    assert complaint(["warpsmith", "judge", "mine", "--task", "examples/nothing.py"]) is not None


def test_the_first_screen_says_how_to_begin() -> None:
    first = "\n".join((ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:20])
    assert -1 < first.find("make demo") < first.find("make test")


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert [link for link in links if link and not (page.parent / link).exists()] == []
    paths = re.findall(r"`((?:src|tests|docs|examples|tools|benchmarks)/[\w./-]*)`", text)
    assert [path for path in paths if not path.startswith(MADE) and not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page not in GENERATED], ids=named)
def test_page_names_no_machine(page: Path) -> None:
    assert HOSTS.findall(page.read_text(encoding="utf-8")) == []


def test_every_page_is_in_the_navigation() -> None:
    listed = set(re.findall(r"^ +- .+: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE))
    assert listed == {page.name for page in PAGES if page.parent.name == "docs"}


def test_generated_pages_are_up_to_date() -> None:
    assert reference.stale() == [], "make reference"


def test_the_uncertainty_of_estimates_is_told() -> None:
    for page in (ROOT / "README.md", ROOT / "docs" / "simulator.md"):
        assert f"factor of {UNCERTAINTY:g}" in " ".join(page.read_text(encoding="utf-8").split())


def test_contributors_are_shown_files_that_exist() -> None:
    text = (ROOT / "AGENTS.md").read_text(encoding="utf-8")
    paths = re.findall(r"`((?:task|judge|device|author|evolve)/[\w./]+)`", text)
    assert len(paths) > 5
    assert [path for path in paths if not (ROOT / "src" / "warpsmith" / path).exists()] == []


# ------------------------------------------------------------------------------------------------------------- running


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the examples and the page's third attempt in it, where searches are short."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    write_attempt(tmp_path / "mine", 2)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WARPSMITH_MAX_CANDIDATES", "2")
    monkeypatch.setenv("WARPSMITH_BUDGET", "240")
    monkeypatch.setenv("WARPSMITH_WORKERS", "1")
    return tmp_path


def write_attempt(folder: Path, number: int) -> None:
    """Write the program of one attempt of docs/authoring.md."""
    page = ROOT / "docs" / "authoring.md"
    folder.mkdir()
    (folder / "kernel.cu").write_text(blocks(page, "cuda")[number])
    (folder / "plan.toml").write_text(blocks(page, "toml")[0])


def scripts() -> Iterator[object]:
    """Every Python block of the pages that people write, in order; docs/program.md has a test of its own."""
    for page in PAGES:
        if page not in GENERATED and page.name != "program.md":
            for number, block in enumerate(blocks(page, "python"), 1):
                yield pytest.param(block, id=f"{named(page)} {number}")


@pytest.mark.parametrize("block", list(scripts()))
def test_python_runs_as_a_script(block: str, clone: Path) -> None:
    (clone / "script.py").write_text(block)
    done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr


def test_the_names_in_a_plan_are_printed_as_the_page_says(clone: Path) -> None:
    page = ROOT / "docs" / "authoring.md"
    done = subprocess.run([sys.executable, "-c", blocks(page, "python")[0]], capture_output=True, text=True)
    assert done.stdout == blocks(page, "text")[0]


def test_the_judge_says_of_each_attempt_what_the_page_says(tmp_path: Path) -> None:
    task = load_task(ROOT / "examples" / "softmax.py")
    said = blocks(ROOT / "docs" / "authoring.md", "text")[1:]
    assert len(said) == 3
    with Builder(tmp_path / "cache") as builder:
        judge = Judge(task, Simulator(gpu("H200")), builder)
        for number, text in enumerate(said):
            write_attempt(tmp_path / str(number), number)
            verdict = judge_folder(judge, tmp_path / str(number)).verdict
            if verdict.timing is not None and verdict.profile is not None:
                expected = f"passed: {render_time(verdict.timing)}", f"Bottleneck {verdict.profile.bottleneck}."
            else:
                assert verdict.failure is not None
                expected = f"failed at stage {verdict.failure.stage.name.lower()}: {verdict.failure.reason}", ""
            assert [line for line in expected if line not in text] == []
