"""The built-in author: a compiler from functional graphs to CUDA, steered by recipes."""

from warpsmith.author.builtin.author import BuiltinAuthor
from warpsmith.author.builtin.compile import Compiled, compile_graph
from warpsmith.author.builtin.recipe import Recipe

__all__ = ["BuiltinAuthor", "Compiled", "Recipe", "compile_graph"]
