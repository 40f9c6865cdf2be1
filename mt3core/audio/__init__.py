"""Audio files and streams as mono float32 at the model's sample rate."""

# What counts as a recording when a folder is searched. If a recording exists in several formats, the first one here
# is used: lossless formats come first. Some need ffmpeg; videos are read only if they are named.
AUDIO_SUFFIXES = (
    *(".wav", ".wave", ".flac", ".aiff", ".aif", ".aifc", ".w64", ".caf", ".au", ".wv", ".ape", ".tta"),
    *(".ogg", ".oga", ".opus", ".mp3", ".m4a", ".aac", ".wma"),
)
