"""The small model that ships with mt3kit: any music, 8 million parameters, many times real time on two cores.

Aim: transcribe pianos, bands and drums with a network that runs on a laptop, trained on music and sounds whose licences
allow the weights to be distributed.

Data: published music and composed pieces, rendered with sampled instruments and sound fonts; made by

    python recipes/small/data.py --out small-data

Command:

    mt3 train --config small
    mt3 convert checkpoint/small models/small --dtype bfloat16

Three runs in a row, all with segments of half a second. With onsets-only targets the decoder's attention finds the
notes within a few hundred steps; with complete targets it takes several times as long. So the first run hears pianos
and writes onsets; the second also hears drums and single instruments and writes all events; the third also hears
mixes. Segments of one second lost what had been learned in every attempt so far. Muon is used for the layers' matrices.

Expected: docs/small_model.md has a log of everything that was tried, with results, and says how the shipped weights
were made: by `recipes/small/gpu.py`, whose stages are like these, on a GPU, further on a CPU, and again on a GPU. These
three runs as a whole: not yet run in one go; the beginning of the first follows `small_curve.json`.
"""

from dataclasses import replace

from mt3core.config.data import AugmentationConfig, DatasetChoice
from mt3core.config.model import ModelConfig, NetworkConfig, SpectrogramConfig, VocabularyConfig
from mt3core.config.training import (
    BatchConfig,
    CheckpointConfig,
    DataConfig,
    FinishConfig,
    OptimizerConfig,
    SafetyConfig,
    TrainingConfig,
    ValidationConfig,
)

MODEL = ModelConfig(
    name="small",
    network=NetworkConfig(
        num_encoder_layers=7,
        num_decoder_layers=2,
        num_heads=8,
        head_dim=32,
        emb_dim=256,
        mlp_dim=640,
        dropout_rate=0.0,
        vocab_size=640,
        input_frames=32,
        input_bands=256,
        max_target_tokens=128,
    ),
    # 16 ms per frame: half the encoder's work at 8 ms, without a visible loss.
    spectrogram=SpectrogramConfig(hop_samples=256, mel_bands=256),
    # 20 ms per step: onset times are learned last, and half as many possible times are learned sooner.
    # A network of this size writes an onset twice when it is unsure; nothing is struck again within 50 ms.
    vocabulary=VocabularyConfig(
        steps_per_second=50, max_shift_seconds=2, program_granularity="midi_class", shortest_repeat_seconds=0.05
    ),
)

_DATA = DataConfig(
    manifest="small-data/cache",
    max_examples_per_mix=2,
    part_gain_db=6.0,
    augmentation=AugmentationConfig(
        gain_probability=0.7,
        gain_db=(-18.0, 3.0),
        polarity_probability=0.5,
        tilt_probability=0.8,
        tilt_db=10.0,
        noise_probability=0.5,
        noise_snr_db=(15.0, 50.0),
        reverb_probability=0.6,
        reverb_seconds=(0.1, 0.9),
        reverb_db=(-22.0, -6.0),
        equaliser_probability=0.4,
        low_pass_probability=0.15,
        high_pass_probability=0.15,
        compression_probability=0.2,
        saturation_probability=0.1,
    ),
)

_OPTIMIZER = OptimizerConfig(
    kind="muon",
    learning_rate=5e-3,
    schedule="cosine",
    warmup_steps=50,
    end_factor=0.03,
    weight_decay=0.01,
    clip_norm=1.0,
    ema_decay=0.998,
)

onsets = TrainingConfig(
    name="onsets",
    model=replace(
        MODEL,
        network=replace(MODEL.network, max_target_tokens=64),
        vocabulary=replace(MODEL.vocabulary, onsets_only=True),
    ),
    num_steps=1_500,
    data=replace(_DATA, datasets=(DatasetChoice("small_piano", mix=0.85, across=0.15),)),
    batch=BatchConfig(examples=64, block_tokens=4),
    optimizer=_OPTIMIZER,
    safety=SafetyConfig(not_finite="skip"),
    checkpoint=CheckpointConfig(every_steps=250),
    validation=ValidationConfig(every_steps=500, loss_examples=512, num_pieces=6, piece_seconds=15.0, max_tokens=64),
    finish=FinishConfig(curve="small_curve.json"),  # of the first 400 steps
)

single = replace(
    onsets,
    name="single",
    model=MODEL,
    before=onsets,
    num_steps=2_000,
    data=replace(
        _DATA,
        datasets=(
            DatasetChoice("small_piano", weight=0.5, mix=0.9, across=0.1),
            DatasetChoice("small_multi", weight=0.35, mix=0.0, stem=1.0, subset=0.0, across=0.0),
            DatasetChoice("small_drums", weight=0.15, mix=1.0, stem=0.0, subset=0.0, across=0.0),
        ),
    ),
    validation=replace(onsets.validation, every_steps=1_000, max_tokens=128),
    finish=FinishConfig(),
)

config = replace(
    single,
    name="small",
    before=single,
    num_steps=4_500,
    data=replace(
        _DATA,
        max_examples_per_mix=3,
        datasets=(
            DatasetChoice("small_piano", weight=0.48, mix=0.9, across=0.1),
            DatasetChoice("small_multi", weight=0.4, mix=0.4, stem=1.0, subset=0.6, across=0.0),
            DatasetChoice("small_drums", weight=0.12, mix=1.0, stem=0.0, subset=0.0, across=0.0),
        ),
    ),
    optimizer=replace(_OPTIMIZER, learning_rate=4.5e-3),
)
