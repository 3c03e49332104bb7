"""The rules, as pure functions: observations, references and bars in, a `Verdict` out.

Nothing here reads a file, opens a socket or knows pytest; NumPy and rapidfuzz are all it needs.
"""
