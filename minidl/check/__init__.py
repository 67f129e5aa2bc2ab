"""Checking: a gradient against finite differences, a student's function against the reference."""

import importlib
from typing import TYPE_CHECKING, Any

from .gradients import GradcheckError, NondifferentiableError, gradcheck

if TYPE_CHECKING:
    from .checker import ExerciseError, exercise, exercises
else:

    def __getattr__(name: str) -> Any:
        """The exercises and their tables are imported when they are first asked for."""
        if name in ("ExerciseError", "exercise", "exercises"):
            return getattr(importlib.import_module(".checker", __name__), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["ExerciseError", "GradcheckError", "NondifferentiableError", "exercise", "exercises", "gradcheck"]
