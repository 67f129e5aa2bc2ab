"""One hypothesis profile for everyone: the same cases each time, so that a red run is a change and not bad luck.

Hunt for new cases with `pytest --hypothesis-profile=hunt`.
"""

from hypothesis import HealthCheck, settings

# a loaded machine draws slowly; that says nothing about the code
PATIENT = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}

settings.register_profile("steady", max_examples=40, derandomize=True, **PATIENT)
settings.register_profile("hunt", max_examples=1000, **PATIENT)
settings.load_profile("steady")
