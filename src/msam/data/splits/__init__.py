"""What a task's data are, and how they are dealt by seed to training, validation and test."""
