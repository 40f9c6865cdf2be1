"""The cases of the original's codec in `golden/codec_sequences.json`, and the vocabulary of each."""

from mt3core.config.model import VocabularyConfig
from mt3core.notes.vocabulary import Vocabulary

ENTRIES = (
    "multi_mt3",
    "multi_mt3_trimmed",
    "multi_mt3_midi_class",
    "multi_mt3_flat",
    "multi_ties_127",
    "piano_ismir2021",
    "piano_mt3",
    "piano_onsets",
)
FRAMES_PER_SECOND = 125.0


def config_of(entry: dict) -> VocabularyConfig:
    return VocabularyConfig(
        velocity_bins=entry["velocity_bins"],
        ties=entry["spec"] == "ties",
        onsets_only=entry["spec"] == "onsets",
        program_granularity=entry["program_granularity"],
    )


def event_of(vocabulary: Vocabulary, event_id: int) -> tuple[str, int]:
    """Type and value of an event id."""
    ((kind, first),) = [
        (kind, first) for kind, (first, last) in vocabulary.event_ranges.items() if first <= event_id <= last
    ]
    return kind, event_id - first
