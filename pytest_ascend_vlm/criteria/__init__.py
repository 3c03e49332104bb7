"""The rules: pure functions that turn observations, references and thresholds into a `Verdict`.

No rule reads a file, opens a socket or imports pytest. NumPy and rapidfuzz are the dependencies.
"""
