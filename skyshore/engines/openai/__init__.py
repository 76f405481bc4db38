"""An engine over a server that the user already runs, with OpenAI's HTTP interface."""
