"""Audio files and streams as mono float32 at the model's sample rate."""

# By which names the readers of data sets know a recording. If one exists in several formats, the first one here is
# used: lossless formats come first, videos last. How a file is read is decided by its content, not by its name.
AUDIO_SUFFIXES = (
    *(
        ".wav",
        ".wave",
        ".flac",
        ".aiff",
        ".aif",
        ".aifc",
        ".w64",
        ".rf64",
        ".caf",
        ".au",
        ".wv",
        ".ape",
        ".tta",
        ".tak",
    ),
    *(".dsf", ".ogg", ".oga", ".opus", ".spx", ".mp3", ".mp2", ".m4a", ".m4b", ".aac", ".ac3", ".mpc", ".wma", ".mka"),
    *(".webm", ".mp4", ".m4v", ".mkv", ".mov"),
)
