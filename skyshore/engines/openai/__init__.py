"""An engine that lets a server the user already runs do the work: anything that speaks OpenAI's HTTP interface."""
