"""What every test of the repository needs; the plugin registers itself through its entry point."""

pytest_plugins = ["pytester"]

try:
    from hypothesis import HealthCheck, settings
except ModuleNotFoundError:  # only the project's own tests need it
    pass
else:
    # How long an example takes says how busy the host is.
    settings.register_profile(
        "any host", deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("any host")
