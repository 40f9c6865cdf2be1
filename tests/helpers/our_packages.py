"""The packages of this project: as they are imported, and the folders that they lie in."""

OURS = (
    "mt3core",
    "mt3decode",
    "mt3music",
    "mt3data",
    "mt3page",
    "mt3eval",
    "mt3render",
    "mt3serve",
    "mt3jax",
    "mt3torch",
    "mt3convert",
    "mt3app",
)
FOLDERS = tuple(name.replace("mt3convert", "convert") for name in OURS)
