"""The judge: is a candidate right, and how fast is it? It knows no author."""

from warpsmith.judge.folder import judge_folder, read_candidate
from warpsmith.judge.judge import JUDGE_VERSION, Judge
from warpsmith.judge.render import render, render_time

__all__ = ["JUDGE_VERSION", "Judge", "judge_folder", "read_candidate", "render", "render_time"]
