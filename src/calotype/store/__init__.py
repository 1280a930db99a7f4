"""Where tasks, attempts, money and keys are kept: one port, one folder per database."""
