"""Experiments: a scenario, policies and seeds in; tables, plots, a verifiable bundle and an honest error out."""
