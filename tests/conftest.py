"""One hypothesis profile for everyone: the same cases each time, so that a red run is a change and not bad luck.

Hunt for new cases with `pytest --hypothesis-profile=hunt`.
"""

import pytest
from hypothesis import HealthCheck, settings

from minidl.nn import init

# a loaded machine draws slowly; that says nothing about the code
PATIENT = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}

settings.register_profile("steady", max_examples=40, derandomize=True, **PATIENT)
settings.register_profile("hunt", max_examples=1000, **PATIENT)
settings.load_profile("steady")


@pytest.fixture
def blank_weights(monkeypatch):
    """Layers start with zeros, which takes no time, where only shapes and counts matter."""
    for name in ("kaiming_uniform_", "kaiming_normal_", "xavier_normal_", "xavier_uniform_", "normal_", "uniform_",
                 "trunc_normal_"):
        monkeypatch.setattr(init, name, lambda tensor, *_, **__: tensor)


@pytest.fixture
def no_network(monkeypatch):
    """Whoever reaches for the network fails."""
    def refuse(*_, **__):
        raise AssertionError("the network was touched")

    monkeypatch.setattr("urllib.request.OpenerDirector.open", refuse)
