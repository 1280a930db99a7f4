"""The pages, a module for each group of them: ``routes(console)`` of every one here is served."""
