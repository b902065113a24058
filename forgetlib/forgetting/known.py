"""Every method of the package: who reads a stored checkpoint knows them by importing this file.

A new file of methods has its line here. It imports torch where it needs it only, as they all do.
"""

from forgetlib.forgetting.labels import Labels

__all__ = ["Labels"]
