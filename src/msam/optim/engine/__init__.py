"""The engine: passes, the way up and back, what a step gives back as it found it, and the account of what was done."""
