"""What 'skyshore bench' runs."""
