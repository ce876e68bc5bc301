"""The frozen way: every picture passes the trunk once, and what came out is kept."""
