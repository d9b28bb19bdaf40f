"""Where data come from: archives of package registries, and the cache of what was built of them."""
