"""The peer ``torch``: what another library takes for the same."""
