"""An agent that does what its first argument says. It is started as a program, in the scratch folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

PLAN = """
[symbols]
count = "x.numel"

[tunables]
BLOCK = [256, 128]

[[launch]]
kernel = "relu"
grid = ["ceil_div(count, BLOCK)"]
block = ["BLOCK"]
args = ["x", "out", "count"]
"""
SOURCE = """extern "C" __global__ void relu(const float* x, float* out, int count) {
  const int index = blockIdx.x * BLOCK + threadIdx.x;
  if (index < count) out[index] = fmaxf(x[index], 0.0f);
}
"""


def answer(source: str = SOURCE, plan: str = PLAN) -> Path:
    folder = Path("answer")
    folder.mkdir()
    (folder / "kernel.cu").write_text(source)
    (folder / "plan.toml").write_text(plan)
    return folder


def good() -> None:
    question = Path(sys.argv[2]).read_text()
    parent = Path("parent-1", "kernel.cu")
    source = parent.read_text() + "// by the agent\n" if parent.exists() else SOURCE
    folder = answer(source)
    (folder / "note.md").write_text("# Vector loads\n\nMore.\n")
    (folder / "cost.json").write_text('{"usd": 0.25}')
    print("I have read", len(question), "characters, and am done.")


def environment() -> None:
    print(json.dumps(dict(os.environ)))
    print("here:", sorted(each.name for each in Path().iterdir()), Path.cwd())


def hang() -> None:
    answer()
    time.sleep(600)


def flood() -> None:
    while True:
        print("x" * 100_000)


def fill() -> None:
    answer()
    with Path("large").open("wb") as file:
        file.write(os.urandom(8 << 20))
    time.sleep(600)


def fork() -> None:
    sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
    pids = [subprocess.Popen(sleeper).pid for _ in range(3)]
    Path(sys.argv[3]).write_text(" ".join(map(str, pids)))
    answer()


def link() -> None:
    folder = answer()
    (folder / "kernel.cu").unlink()
    (folder / "kernel.cu").symlink_to(sys.argv[3])


def linked_folder() -> None:
    Path("answer").symlink_to(Path(sys.argv[3]).parent)


def pipe() -> None:
    folder = answer()
    (folder / "kernel.cu").unlink()
    os.mkfifo(folder / "kernel.cu")


def enormous() -> None:
    with (answer() / "kernel.cu").open("a") as file:
        file.truncate(5 << 30)


def binary() -> None:
    (answer() / "kernel.cu").write_bytes(b"\xff\xfe")


def malformed() -> None:
    answer(plan="[[launch]\n")


def library() -> None:
    answer(plan='[[call]]\nop = "aten.mm"\nargs = ["x", "x"]\nout = "out"\n')


def half() -> None:
    (answer() / "plan.toml").unlink()


def nothing() -> None:
    print("I could not do it.")
    sys.exit(3)


def closed() -> None:
    folder = answer()
    (folder / "cost.json").write_text('{"usd": true}')
    folder.chmod(0o755)
    (Path("tmp") / "locked").mkdir(mode=0o000)


def dear() -> None:
    (answer() / "cost.json").write_text('{"usd": 1e999}')


def ask(server: subprocess.Popen[str], number: int, method: str, **params: object) -> dict[str, object]:
    """Speak with an MCP server, as an agent does."""
    assert server.stdin is not None and server.stdout is not None
    server.stdin.write(json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}) + "\n")
    server.stdin.flush()
    return json.loads(server.stdout.readline())["result"]


def judge() -> None:
    """Have a wrong program and a right one judged, answer with neither, and print what was said."""
    described = json.loads(Path(sys.argv[3]).read_text())["mcpServers"]["warpsmith"]
    server = subprocess.Popen(
        [described["command"], *described["args"]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    client = {"name": "scripted", "version": "1"}
    ask(server, 1, "initialize", protocolVersion="2025-06-18", capabilities={}, clientInfo=client)
    assert server.stdin is not None
    server.stdin.write('{"jsonrpc": "2.0", "method": "notifications/initialized"}\n')
    tools = ask(server, 2, "tools/list")["tools"]
    print("tools:", [each["name"] for each in tools])  # type: ignore[index, attr-defined]
    for number, source in ((3, SOURCE.replace("0.0f", "0.5f")), (4, SOURCE)):
        arguments = {"kernel_cu": source, "plan_toml": PLAN, "tunables": {"BLOCK": 128}}
        result = ask(server, number, "tools/call", name="judge_program", arguments=arguments)
        said = result["structuredContent"]
        print("judged:", said["passed"], said["reason"])  # type: ignore[index]
    server.stdin.close()
    server.wait()


if __name__ == "__main__":
    globals()[sys.argv[1]]()
