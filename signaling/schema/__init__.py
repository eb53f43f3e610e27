"""The SQL of each migration, numbered; applied by `signaling.migrations`."""
