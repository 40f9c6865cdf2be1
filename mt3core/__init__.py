"""The part of music transcription that is no neural network: audio, spectrogram, tokens, notes, MIDI.

Imports neither JAX nor PyTorch.
"""
