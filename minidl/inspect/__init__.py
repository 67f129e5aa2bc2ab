"""Looking into networks: what each layer costs and sees, and one backward pass, an operation at a time."""

from .step_through import StepThrough, step_through
from .summary import Layer, Summary, summary

__all__ = ["Layer", "StepThrough", "Summary", "step_through", "summary"]
