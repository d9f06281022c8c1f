"""The hypothesis profile for mutants: what fails is not made smaller, which takes much longer than to find it."""

from hypothesis import HealthCheck, Phase, settings

settings.register_profile(
    "mutants",
    max_examples=50,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow],
)
