"""Checking: a gradient against finite differences, a student's function against the reference."""

from .checker import ExerciseError, exercise, exercises
from .gradients import GradcheckError, NondifferentiableError, gradcheck

__all__ = ["ExerciseError", "GradcheckError", "NondifferentiableError", "exercise", "exercises", "gradcheck"]
