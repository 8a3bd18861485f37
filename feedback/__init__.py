"""What people said and what it is worth. Nothing in this package loads a language model."""
