"""`skyshore traces`: makes, shows and checks schedule files."""
