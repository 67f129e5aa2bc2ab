"""Looking into networks: what each layer costs and sees."""

from .summary import Layer, Summary, summary

__all__ = ["Layer", "Summary", "summary"]
