"""Plain data from engines and harnesses: answers, numerics, loads, evaluations, shutdowns."""
