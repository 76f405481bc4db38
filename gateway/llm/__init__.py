"""LLM requests: the schemas of OpenAI's API, and placing and running a prompt."""
