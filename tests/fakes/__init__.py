"""Processes and servers that stand in for real ones, and misbehave on command."""
