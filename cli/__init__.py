"""placemat-cli: the command that people use."""
