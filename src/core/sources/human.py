"""Sizes and times as `ollama list` writes them: `1.0 GB`, `2 days ago`."""

_UNITS = (("TB", 1000**4), ("GB", 1000**3), ("MB", 1000**2), ("KB", 1000))


def human_size(size: int) -> str:
    """Returns bytes in decimal units: one decimal below ten, none from there on.

    Source: format/bytes.go of Ollama, which leaves the decimal out where it is exactly zero; we keep it.
    """
    for unit, worth in _UNITS:
        if size >= worth:
            value = size / worth
            return f"{int(value)} {unit}" if value >= 10 else f"{value:.1f} {unit}"
    return f"{size} B"


def human_time(moment: float, now: float) -> str:
    """Returns how long ago a moment was; both in seconds since 1970. Source: format/time.go of Ollama."""
    passed = now - moment
    return f"{_duration(-passed)} from now" if passed < 0 else f"{_duration(passed)} ago"


def _duration(seconds: float) -> str:
    minutes, hours = int(seconds / 60), int(seconds / 3600 + 0.5)
    steps = (
        (seconds < 1, "Less than a second"),
        (seconds < 2, "1 second"),
        (seconds < 60, f"{int(seconds)} seconds"),
        (minutes == 1, "About a minute"),
        (minutes < 60, f"{minutes} minutes"),
        (hours == 1, "About an hour"),
        (hours < 48, f"{hours} hours"),
        (hours < 24 * 7 * 2, f"{hours // 24} days"),
        (hours < 24 * 30 * 2, f"{hours // 24 // 7} weeks"),
        (hours < 24 * 365 * 2, f"{hours // 24 // 30} months"),
    )
    return next((text for fits, text in steps if fits), f"{hours // 24 // 365} years")


def human_count(count: int) -> str:
    """Returns a number of parameters as Ollama writes it: `144K`, `4.18M`, `1.7B`."""
    for unit, worth, decimals in (("B", 10**9, 1), ("M", 10**6, 2)):
        if count >= worth:
            value = count / worth
            return f"{value:.0f}{unit}" if value.is_integer() else f"{value:.{decimals}f}{unit}"
    return f"{count / 1000:.0f}K" if count >= 1000 else str(count)
