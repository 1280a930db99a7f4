"""What a process tells of itself: figures, traces, and what a log line belongs to."""
