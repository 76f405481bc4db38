"""How fast, how hungry and how good a node is. Pure: the emulated engine and the simulator run the same code."""
