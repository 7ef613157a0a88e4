"""Devices that run programs."""
