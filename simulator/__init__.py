"""Virtual time: the same policies over the same models, at scale."""
