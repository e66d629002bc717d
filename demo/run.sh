#!/usr/bin/env bash
# From a corpus to an extracted voice: every step of the toolkit once, with a small model. `make demo` calls this.
# PYTHON: the interpreter; OUT: where everything goes; CORPUS: a LibriSpeech-layout folder, or empty for synthetic voices;
# MINUTES: of training.
set -euo pipefail
cd "$(dirname "$0")/.."
corpus=${CORPUS:-$OUT/corpus}
run=$OUT/run
cores=$(nproc)
processes=$((cores > 1 ? 2 : 1)) # two training processes of a thread each do more than one of two

step() {
  printf '\n\033[1m[%02d:%02d] %s\033[0m\n' $((SECONDS / 60)) $((SECONDS % 60)) "$1"
  shift
  printf '+ %s\n' "$*"
  "$@"
}

mix() {
  step "Mixing: $1" "$PYTHON" ./mixing/mix.py -cp ./configs/ -cn "$1" "audios_dir=$corpus" "parts=[$1*]" "out_folder=$OUT/data/$1" \
    "num_workers=$cores" split_single_utterances=true "${@:2}"
}

if [ -z "${CORPUS:-}" ] && [ ! -e "$corpus" ]; then
  step "Corpus: synthetic voices" "$PYTHON" demo/corpus.py --out "$corpus"
fi
mix train nfiles=2000 audio_len=3 ref_max_len=3 max_n_speakers=500
mix dev nfiles=60 audio_len=3 ref_max_len=3
mix test nfiles=100
# without memory and phase, so that six minutes are enough to hear every mixture several times
step "Training: at most $MINUTES minutes" "$PYTHON" ./training/train.py -cp ./configs/ -cn spexplus_online "run_dir=$run" \
  "data.train.folder=$OUT/data/train" "data.valid.folder=$OUT/data/dev" "n_processes=$processes" "trainer.epochs=5" \
  "trainer.batch_size=$((16 / processes))" "trainer.max_minutes=$MINUTES" \
  model.memory=none model.complex_mask=false
step "Testing on voices that were not trained on" "$PYTHON" ./testing/test.py -cp ./configs/ -cn spexplus_online "run_dir=$run" \
  "folder=$OUT/data/test" "n_processes=$cores"
step "Extracting" "$PYTHON" ./inferencing/inference.py -cp ./configs/ -cn spexplus_online "run_dir=$run" "folder=$OUT/data/test"
step "Exporting" "$PYTHON" ./inferencing/export.py -cp ./configs/ -cn export "run_dir=$run"
first=$(find "$OUT/data/test" -name '*-mixed.*' | sort | head -n 1)
step "Live: a file as microphone" "$PYTHON" -m ss.runtime.live --model "$run/exported" --enrol "${first/-mixed./-ref.}" \
  --input "$first" --output "$run/live.wav" --fast
step "Measuring" "$PYTHON" ./measure_weight_and_time/measure_weight_and_time.py -cp ./configs/ -cn spexplus_online \
  "checkpoint=$run/best.pth" "out_folder=$run/measure" live_seconds=5 session_minutes=0.5
step "The page" "$PYTHON" demo/page.py --run "$run" --test "$run/test" --data "$OUT/data/test" --pred "$run/predictions" \
  --exported "$run/exported" --measurement "$run/measure/measurement.json" --out "$OUT/index.html"
