"""The published model on MAESTRO and SLAKH: notes as MIDI, and all published scores of them.

Aim: measure a model on the usual test sets by the rules of every paper, with both backends if wanted.

Data: the test splits of the raw data sets, in `datasets/maestro-v3.0.0/` and `datasets/slakh2100_flac_redux/`, or in
`data.maestro` and `data.slakh`. SLAKH is scored twice: each stem alone against its own notes, and the mix against all.

Command:

    mt3 evaluate --config sample --limit 10
    mt3 evaluate --config sample --backend both --set data.variants=maestro --set data.maestro=DIR

The model is the one that `mt3 transcribe` uses; choose another with `--model`. For quicker scores use
`--set protocols=mt3,yourmt3_slakh`; to decode only the beginning of each recording, `--set data.most_seconds=60`.

It writes `eval_outputs/{maestro,slakh_stems,slakh_mix}/sample_*.mid` and `eval_outputs/metrics_sample.json`. Run the
same command again to decode only what is missing.

Expected: not yet run on the whole of either data set. docs/results.md has results on rendered ones.
"""

from mt3core.config.evaluation import EvaluationConfig, EvaluationData

config = EvaluationConfig(
    name="sample",
    data=EvaluationData(variants=("maestro", "slakh_stems", "slakh_mix"), split="test"),
    protocols=("all",),
)
