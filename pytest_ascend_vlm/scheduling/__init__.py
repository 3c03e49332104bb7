"""Which model runs where when several run at once."""
