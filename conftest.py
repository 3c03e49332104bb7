"""Nothing to set up: the plugin registers itself through its entry point."""

pytest_plugins = ["pytester"]
