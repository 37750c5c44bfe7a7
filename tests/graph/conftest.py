import os

from hypothesis import HealthCheck, Phase, settings

# Shrinking a graph takes minutes; a failing example prints its layers instead.
settings.register_profile(
    "default",
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
settings.register_profile("ci", settings.get_profile("default"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")
