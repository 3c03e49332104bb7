"""vLLM: its server, arguments, offline engines and metrics."""
