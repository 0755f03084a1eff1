"""The driver and the runtime."""
