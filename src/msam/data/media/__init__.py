"""Sound and video of files: decoded, placed by their time stamps, and refused by name where they decode to nonsense."""
