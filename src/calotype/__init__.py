"""Calotype: a self-hosted image-generation API where every request is a durable task."""

__version__ = "0.1.0"
