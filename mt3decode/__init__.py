"""Between the network and the notes: what both networks share about decoding a recording, without a framework.

Which tokens may come next (`grammar`), which segments are decoded and in which order (`windows`, `stretches`), and the
way from audio to notes around a network (`transcriber`).
"""
