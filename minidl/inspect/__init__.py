"""Looking into networks: what layers cost and see, one backward pass, what units answer to and decisions hang on."""

from .gradients import gradient_norms
from .step_through import StepThrough, step_through
from .summary import Layer, Summary, summary
from .visualize import deconvnet, occlusion

__all__ = ["Layer", "StepThrough", "Summary", "deconvnet", "gradient_norms", "occlusion", "step_through", "summary"]
