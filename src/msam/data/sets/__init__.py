"""Data sets: one file each, embedded, from packages of extras, or built once into the cache; and the lists of them."""
