"""The HTTP API: parse, authenticate, call one service, render."""
