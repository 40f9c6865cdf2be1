#!/bin/bash
# Transcribes a folder of recordings as an array of SLURM jobs, of which each takes its share with mt3 transcribe.
#
#   sbatch --array=1-16 examples/transcribe_corpus_slurm.sh recordings/ notes/ --model small --format mid
#
# All arguments after the second go to mt3 transcribe. Results that exist are skipped, so the same command goes on after
# a time limit, also with more or fewer jobs. A job in which recordings failed has exit code 1 and their reasons in
# notes/failures-3-of-16.txt. `mt3` must be on the path: activate its environment before sbatch.
#SBATCH --job-name=mt3
#SBATCH --cpus-per-task=4
#SBATCH --mem=4G
#SBATCH --time=08:00:00
#SBATCH --output=%x-%A_%a.log
set -euo pipefail
if [ $# -lt 2 ] || [ -z "${SLURM_ARRAY_TASK_COUNT:-}" ]; then
    echo "Usage: sbatch --array=1-N $(basename "$0") RECORDINGS NOTES [OPTIONS OF mt3 transcribe]" >&2
    exit 2
fi
recordings=$1 notes=$2
shift 2
number=$((SLURM_ARRAY_TASK_ID - SLURM_ARRAY_TASK_MIN + 1))
failures="$notes/failures-$number-of-$SLURM_ARRAY_TASK_COUNT.txt"

mkdir -p "$notes"
code=0
mt3 transcribe "$recordings" -o "$notes/" --shard "$number/$SLURM_ARRAY_TASK_COUNT" --quiet "$@" 2>"$failures" || code=$?
cat "$failures" >&2
[ -s "$failures" ] || rm "$failures"
exit $code
