"""Circuits evaluated without a simulator: gates, three exact engines, and PennyLane as the definition."""
