"""What a step is asked to solve: closures, batches of them, models called as ``model(**batch)``, blocks of parameters."""
