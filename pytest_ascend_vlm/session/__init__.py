"""What the tests of one run and of one model share."""
