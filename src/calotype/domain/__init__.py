"""What Calotype is about, free of any I/O: tasks, models, money, outcomes, errors."""
