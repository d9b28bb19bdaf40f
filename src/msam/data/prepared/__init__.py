"""Data sets prepared from the user's own files: parallel, resumable, with a manifest, and read from a memory map."""
