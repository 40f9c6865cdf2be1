"""The part of music transcription without a neural network: audio, spectrogram, tokens, notes, MIDI.

Imports neither JAX nor PyTorch.
"""
