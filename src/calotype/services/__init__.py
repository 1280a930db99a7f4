"""What Calotype does: submission, running a task, routing, references, assets, accounts."""
