"""Coding agents as authors: a program that works in a scratch folder, with the judge as its only tool.

    command = ["some-agent", "--print", "{prompt}", "--mcp-config", "{mcp_config}"]
    agent = HeadlessAgent(command, open_desk, environment=("SOME_AGENT_KEY",))
    result = warpsmith.optimize(module, example_inputs, authors=[agent])

What serves the judge to the agent is handed in as `open_desk`: `warpsmith.server` makes one.
"""

from warpsmith.author.agent.author import HeadlessAgent
from warpsmith.author.agent.desk import Desk, OpenDesk
from warpsmith.author.agent.limits import AgentLimits

__all__ = ["AgentLimits", "Desk", "HeadlessAgent", "OpenDesk"]
