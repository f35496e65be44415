"""Traces: what is off costs nothing, and what is on finds the way from a request to its row."""
