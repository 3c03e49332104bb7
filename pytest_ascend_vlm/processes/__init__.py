"""Processes that cannot outlive a test run: supervision, exit codes, logs, CPU usage."""
