"""What is seen: answers, numerics, loads, evaluations, shutdowns. Plain data."""
