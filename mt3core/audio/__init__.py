"""Audio files and streams as mono float32 at the model's sample rate."""

# What counts as a recording when a folder is searched. In order of preference where one is there in several forms:
# unchanged and whole ones first. Some need ffmpeg; videos are read where they are named.
AUDIO_SUFFIXES = (
    *(".wav", ".wave", ".flac", ".aiff", ".aif", ".aifc", ".w64", ".caf", ".au", ".wv", ".ape", ".tta"),
    *(".ogg", ".oga", ".opus", ".mp3", ".m4a", ".aac", ".wma"),
)
