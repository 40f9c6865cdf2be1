"""The published model on MAESTRO and SLAKH: notes as MIDI, and every published score of them.

Aim: what a model is worth on the usual test sets, by every paper's way of counting, and the same from both back ends.

Data: the test splits of the raw data sets, `datasets/maestro-v3.0.0/` and `datasets/slakh2100_flac_redux/`, or where
`data.maestro` and `data.slakh` say. SLAKH comes twice: each stem alone against its own notes, and the mix against all.

Command:

    mt3 evaluate --config sample --limit 10
    mt3 evaluate --config sample --backend both --set data.variants=maestro --set data.maestro=DIR

The model is the one that `mt3 transcribe` takes; another by `--model`, quicker scores by
`--set protocols=mt3,yourmt3_slakh`, beginnings only by `--set data.most_seconds=60`.

It leaves `eval_outputs/{maestro,slakh_stems,slakh_mix}/sample_*.mid` and `eval_outputs/metrics_sample.json`. The same
command again decodes only what is not there yet.

Expected: not yet run on the whole of either data set. docs/results.md has figures from rendered ones.
"""

from mt3core.config.evaluation import EvaluationConfig, EvaluationData

config = EvaluationConfig(
    name="sample",
    data=EvaluationData(variants=("maestro", "slakh_stems", "slakh_mix"), split="test"),
    protocols=("all",),
)
