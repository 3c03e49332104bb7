"""State that the tests of one run, or of one model, share."""
