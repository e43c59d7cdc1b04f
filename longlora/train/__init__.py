"""Context extension and supervised fine-tuning: from rows or text to an adapter folder."""
