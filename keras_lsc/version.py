"""The version of the package, and those of the packages that it runs with."""

from importlib.metadata import PackageNotFoundError, version

__version__ = "0.1.0"


def installed_versions(*packages: str) -> dict[str, str]:
    """Returns the versions of those packages that are installed.

    Example:
        >>> installed_versions("keras", "a-package-that-nobody-made").keys()
        dict_keys(['keras'])
    """
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
