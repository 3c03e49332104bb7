"""Integration with pytest: options, selection, fixtures, outcomes, and the closing summary."""
