"""The networks of the published system, and what they read."""
