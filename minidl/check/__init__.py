"""Checking a gradient against finite differences."""

from .gradients import GradcheckError, NondifferentiableError, gradcheck

__all__ = ["GradcheckError", "NondifferentiableError", "gradcheck"]
