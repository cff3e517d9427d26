"""What a task is, how its transitions are laid out, and how data sets are read and written."""
