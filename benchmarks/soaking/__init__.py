"""The parts of soak.py: a story written to a file, those who publish and consume it, and what goes wrong meanwhile."""
