"""`/slicecast/sessions`: prompts are kept in a log, the mask they lead to is streamed."""
