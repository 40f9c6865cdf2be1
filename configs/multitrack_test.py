"""Minutes on a CPU, from nothing to a scored transcription: does training work here?

Aim: run the whole pipeline once, small enough for two cores: data, training, conversion, PyTorch. The network learns
only the music of `mt3render/composition.py`.

Data: none needed. 64 pieces for bass, guitar, flute and drums are composed, rendered (TinySoundFont with the sound
font of pretty_midi, or sine waves) and prepared in the user's cache, once.

Command:

    mt3 train --config multitrack_test

At the end it prints the note F1 of a held-out piece with PyTorch and with JAX, draws a picture, and says whether the
loss followed the stored curve.

The network is MT3's with 2 + 2 layers of width 128; segments are half a second long.

Measured on two cores, from an empty cache: 7 min 18 s in total (another program ran at times), and an estimated 0.13 GB
for parameters and activations. Note F1 of the held-out piece is 0.78 (pitched) and 0.88 (drums), the same with PyTorch
and with JAX; that of the validation pieces together is 0.85.
"""

from mt3core.config.data import DatasetChoice
from mt3core.config.model import ModelConfig, NetworkConfig, SpectrogramConfig
from mt3core.config.training import (
    BatchConfig,
    CheckpointConfig,
    DataConfig,
    FinishConfig,
    OptimizerConfig,
    ReportConfig,
    TrainingConfig,
    ValidationConfig,
)

MODEL = ModelConfig(
    name="multitrack_test",
    network=NetworkConfig(
        num_encoder_layers=2,
        num_decoder_layers=2,
        num_heads=4,
        head_dim=32,
        emb_dim=128,
        mlp_dim=256,
        dropout_rate=0.0,
        input_frames=64,
        input_bands=256,
        max_target_tokens=64,
    ),
    spectrogram=SpectrogramConfig(mel_bands=256),
)

config = TrainingConfig(
    name="multitrack_test",
    model=MODEL,
    num_steps=1_000,
    data=DataConfig(composed_pieces=64, datasets=(DatasetChoice("composed", across=0.0),)),
    batch=BatchConfig(examples=32, block_tokens=4),
    optimizer=OptimizerConfig(
        kind="adamw", learning_rate=2e-3, schedule="cosine", warmup_steps=100, end_factor=0.02, clip_norm=1.0
    ),
    checkpoint=CheckpointConfig(every_steps=500, keep_last=2),
    validation=ValidationConfig(every_steps=500, loss_examples=256, num_pieces=2, piece_seconds=10.0, max_tokens=64),
    report=ReportConfig(every_steps=10),
    finish=FinishConfig(transcribe=True, curve="multitrack_test_curve.json"),
)
