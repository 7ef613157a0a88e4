"""Executes PTX on the CPU: for all threads of many blocks at once, checked, counted."""

from warpsmith.device.simulator.estimate import LaunchEstimate, explain
from warpsmith.device.simulator.simulator import Simulator

__all__ = ["LaunchEstimate", "Simulator", "explain"]
