"""A cloud node: the same worker, plus torch and DSP."""
