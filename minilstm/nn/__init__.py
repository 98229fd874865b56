"""The lesson: each file holds a forward and its backward, side by side. Start with lstm.py."""
