"""What the reference answered: read by everyone (`store`), written by one (`recorder`)."""
