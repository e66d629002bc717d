#!/usr/bin/env bash
# On a machine with a GPU: its tests, how much it hears in a minute, and a training for the rest of the time. `make gpu` calls this.
# Nothing is fetched. PYTHON: an interpreter with torch for CUDA; WHEELS: a folder of wheel files with what else it lacks, or empty;
# CORPUS: a folder in LibriSpeech's layout with parts train* and dev*; NOISE, RIRS: folders of noise and of responses of rooms, or empty;
# CONFIG: of training/configs, one that trains on scenes; OVERRIDES: of that config;
# MINUTES: for everything together; OUT: where it goes. The same command goes on with a training that is in OUT.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${PYTHON:=python3}" "${OUT:=demo-output-gpu}" "${MINUTES:=8}" "${CONFIG:=release}" "${NOISE:=}" "${RIRS:=}" "${OVERRIDES:=}" "${WHEELS:=}" "${CORPUS:=}"

if ! "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2> /dev/null; then
  echo "make gpu: skipped: $PYTHON has no torch with a GPU that it can use"
  exit 0
fi
mkdir -p "$OUT"
OUT=$(realpath "$OUT")
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
if [ -n "$WHEELS" ]; then
  "$PYTHON" -m pip install --quiet --no-index --no-deps --upgrade --target "$OUT/site" "$WHEELS"/*.whl
  export PYTHONPATH=$PYTHONPATH:$OUT/site
fi

step() {
  printf '\n[%02d:%02d] %s\n' $((SECONDS / 60)) $((SECONDS % 60)) "$1"
  shift
  printf '+ %s\n' "$*"
  "$@"
}

failed=0
step "Tests" timeout 150 "$PYTHON" -m pytest -q -m gpu -p no:cacheprovider tests/test_gpu.py || failed=1
if [ -z "$CORPUS" ]; then
  echo "no CORPUS: nothing to train on"
  exit $failed
fi
CORPUS=$(realpath "$CORPUS")
if [ ! -e "$OUT/dev" ]; then
  step "Mixing: dev" "$PYTHON" ./mixing/mix.py -cp ./configs/ -cn dev "audios_dir=$CORPUS" "parts=[dev*]" "out_folder=$OUT/dev" nfiles=100 \
    audio_len=4 "num_workers=$(nproc)" split_single_utterances=true
fi
data=("data.train.sources.audios_dir=$CORPUS" "data.train.sources.parts=[train*]" "data.valid.folder=$OUT/dev" scene.same_gender_share=0)
if [ -n "$NOISE" ]; then data+=("data.train.sources.noise=$(realpath "$NOISE")"); else data+=(scene.noise_share=0 scene.enrolment.noise_share=0); fi
if [ -n "$RIRS" ]; then data+=("data.train.sources.rirs=$(realpath "$RIRS")"); else data+=(scene.reverb_share=0 scene.enrolment.reverb_share=0); fi
# shellcheck disable=SC2206 # words of it
more=($OVERRIDES)
quoted=$(printf "'%s'," "${data[@]}" "${more[@]}")
step "Speed" "$PYTHON" ./measure_weight_and_time/training_speed.py -cp ./configs/ -cn training_speed "training=$CONFIG" "overrides=[${quoted%,}]" \
  rounds=1 seconds=20 warm_up=10 threads=null "out_folder=$OUT"
"$PYTHON" -c "import json; print(f'{json.load(open(\"$OUT/training_speed.json\"))[\"rows\"][0][\"heard_per_second\"] / 60:.2f} hours heard per minute')"
left=$((60 * MINUTES - SECONDS - 20)) # the last evaluation takes a while
if [ $left -gt 0 ]; then
  step "Training" "$PYTHON" ./training/train.py -cp ./configs/ -cn "$CONFIG" "run_dir=$OUT/run" "${data[@]}" "${more[@]}" \
    "trainer.max_minutes=$(awk "BEGIN { print $left / 60 }")"
fi
exit $failed
