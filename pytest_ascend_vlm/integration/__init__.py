"""What speaks with pytest: options, selection, fixtures, outcomes, the closing report."""
