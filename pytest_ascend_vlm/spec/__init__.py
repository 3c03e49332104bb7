"""What is declared: models, thresholds, cases, data sets, published figures."""
