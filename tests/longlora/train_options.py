"""Settings of the small training runs in the tests."""

SMALL = {"row_tokens": 96, "global_batch_size": 2, "warmup_steps": 2, "learning_rate": 1e-2, "threads": 1}
