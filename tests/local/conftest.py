"""Tests of local pictures need the extra `local`; `make test-local` has it, or fails."""

from importlib.util import find_spec

if not all(find_spec(library) for library in ("diffusers", "torch", "transformers")):
    collect_ignore_glob = ["*"]
