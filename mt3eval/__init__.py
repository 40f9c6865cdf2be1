"""Scores of a transcription against its reference, by the rules of each published evaluation."""
