"""The router container's entrypoint: configuration, the running service and its command line."""

SOCKET_NAME = "lanward.sock"
"""The control socket's name in the state folder."""


class NotRunningError(Exception):
    """The service does not answer; ``str()`` is one sentence for the operator."""


class UsageError(Exception):
    """A command was given something it does not understand; ``str()`` is one line that says what it expects."""
