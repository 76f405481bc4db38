"""Fits node models to live runs."""
