"""The exceptions that say what a person can mend."""


class InputError(ValueError):
    """Bad input: one clear sentence that says what is wrong, where, and what is allowed.

    Raise it for anything that a user hands over: files, flags, config keys, folders. The apps
    print the sentence alone, without a traceback, and exit with code 2.
    """


class RunStopped(RuntimeError):
    """A run cannot go on, though nothing is wrong with its input: why, and what to do.

    A full disk, a host that is lost, a loss that is infinite. The apps print the sentence alone,
    without a traceback, and exit with code 1.
    """
