"""Notes as tables, as MIDI files, and as the tokens that a network reads and writes."""

MIDI_SUFFIXES = (".mid", ".midi", ".smf", ".kar", ".rmi")
