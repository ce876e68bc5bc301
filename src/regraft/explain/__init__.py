"""What a network looks at and what it has learned."""
