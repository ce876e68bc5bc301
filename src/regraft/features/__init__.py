"""The frozen mode: every image passes the trunk once, and its features are kept."""
