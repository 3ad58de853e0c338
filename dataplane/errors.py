"""Errors a user can cause and mend: each is one line that says what is wrong and what to type."""


class SetupError(Exception):
    """A setting, device or privilege that isn't there. The command line prints it and exits with status 2."""


class DeviceError(SetupError):
    """A device that can't be parsed, made or opened."""
