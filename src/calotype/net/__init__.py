"""How Calotype reaches addresses that a user gave: guarded, pinned and bounded."""
