"""Routes only translate: HTTP in, a call on one collaborator, HTTP out."""
