"""The built-in upstream: draws a real picture of the right size from the prompt, for nothing."""
