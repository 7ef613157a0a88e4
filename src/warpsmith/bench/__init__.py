"""Benchmarks: a suite of tasks run one after the other or several at once, kept in a folder, and reported."""

from warpsmith.bench.compare import modes_named
from warpsmith.bench.contrast import Contrast, Pair, compare_benches
from warpsmith.bench.display import LiveWatcher, PlainWatcher, Watcher, Words, watcher_for
from warpsmith.bench.entries import Entry, discover
from warpsmith.bench.folder import Bench, BenchFolder, load_bench
from warpsmith.bench.regime import regime
from warpsmith.bench.report import render_bench, render_contrast_html, write_bench, write_contrast
from warpsmith.bench.row import BaselineTime, Machine, Row, RunRecord, Session
from warpsmith.bench.run import Options, run_bench
from warpsmith.bench.scores import Against, Score, score, scores
from warpsmith.bench.tables import render_contrast, render_scores
from warpsmith.bench.tree import default_memory

__all__ = [
    "Against",
    "BaselineTime",
    "Bench",
    "BenchFolder",
    "Contrast",
    "Entry",
    "LiveWatcher",
    "Machine",
    "Options",
    "Pair",
    "PlainWatcher",
    "Row",
    "RunRecord",
    "Score",
    "Session",
    "Watcher",
    "Words",
    "compare_benches",
    "default_memory",
    "discover",
    "load_bench",
    "modes_named",
    "regime",
    "render_bench",
    "render_contrast",
    "render_contrast_html",
    "render_scores",
    "run_bench",
    "score",
    "scores",
    "watcher_for",
    "write_bench",
    "write_contrast",
]
