"""Fake processes and servers for tests, with defects that a test can choose."""
