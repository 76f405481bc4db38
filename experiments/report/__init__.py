"""Tables, charts and the page of a bundle."""
