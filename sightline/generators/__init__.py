"""Generators that are not the open model of this process: servers of the OpenAI kind."""
