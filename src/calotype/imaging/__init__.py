"""Work on image files: judging, cleaning, converting; it knows nothing of tasks or accounts."""
