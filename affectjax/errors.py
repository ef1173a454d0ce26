"""The one exception that says a person can mend this."""


class InputError(ValueError):
    """Bad input: one clear sentence that says what is wrong, where, and what is allowed.

    Raise it for anything that a user hands over: files, flags, config keys, folders. The apps
    print the sentence alone, without a traceback, and exit with code 2.
    """
