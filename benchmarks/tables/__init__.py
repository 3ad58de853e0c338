"""What a connection takes in memory, and what finding one costs."""
