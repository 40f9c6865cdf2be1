"""Audio files and streams as mono float32 at the model's sample rate."""
